"""Machines: other number formats and other devices."""

from __future__ import annotations

import copy

import torch

from anyformer.core.tree import tensors, tree_map
from anyformer.laws.broken import agree, hold
from anyformer.laws.case import ROWS, Case, ways

# The largest error, relative to the size of the outputs. bfloat16 counts to 256, so no time may be kept in it.
WITHIN = {torch.float32: 1e-5, torch.bfloat16: 0.04}


@torch.no_grad()
def dtype(case: Case) -> None:
    """In float32 and bfloat16 the outputs are close to those in float64, in texts longer than bfloat16 can count."""
    exact = case.model
    text = case.text(300, rows=1)
    want = exact(text.ids, **text.given, sources=case.sources([0]))
    for kind, within in WITHIN.items():
        model = copy.deepcopy(exact).to(kind)
        sources = case.sources([0], model)
        out = model(text.ids, **text.given, sources=sources)
        hold(out.dtype == kind, f"a {kind} model gives {out.dtype}")
        error = ((out.double() - want).norm() / want.norm()).item()
        hold(error <= within, f"{kind}: the outputs are {error:.2g} off, relative to their size")
        if case.has_state:
            at = text.length - 5
            state = model.init_state(1, sources=sources)
            for part in (text.between(0, at), text.between(at, text.length)):
                out, state = model(part.ids, state, **part.given)
            error = ((out.double() - want[:, at:]).norm() / want[:, at:].norm()).item()
            hold(error <= within, f"{kind}, with a state: the outputs are {error:.2g} off, relative to their size")


@torch.no_grad()
def device(case: Case) -> None:
    """A model that is moved runs where it is: nothing is made on, or read from, another device."""
    text, cuts = case.text(9), (5, 1, 3)
    want, sources = case.whole(text), case.sources()
    # Whatever is made without saying where is made without numbers, and cannot meet those of the model.
    with torch.device("meta"):
        agree(case.model(text.ids, **text.given, sources=sources), want, "another default device")
        if case.has_state:
            for way in ways(9):
                state = case.model.init_state(ROWS, sources=sources, capacity=way.capacity, inplace=way.inplace)
                agree(case.feed(text, state, cuts)[0], want, f"another default device, with a state, {way}")
    model = copy.deepcopy(case.model).to("meta")
    if case.has_state:
        held = tensors(model.init_state(ROWS, capacity=9, sources=tree_map(lambda x: x.to("meta"), sources)).past)
        hold(all(x.is_meta for x in held), "a state does not live where the model does")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type != "mps":  # which has no float64
        model = copy.deepcopy(case.model).to(accelerator)
        ids, labels, real, sources = tree_map(
            lambda x: x.to(accelerator) if isinstance(x, torch.Tensor) else x,
            (text.ids, dict(text.labels), text.real, sources),
        )
        out = model(ids, labels=labels, real=real, sources=sources)
        agree(out.cpu(), want, f"on {accelerator}")
