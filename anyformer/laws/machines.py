"""Machines: other number formats and other devices."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch

from anyformer.core.model import Model
from anyformer.core.tree import tensors, tree_map
from anyformer.laws.broken import agree, hold
from anyformer.laws.case import Case, redraw
from anyformer.laws.programs import Step, arguments_of

T = TypeVar("T")

# The largest error relative to the size of the outputs. Past 256 tokens bfloat16 cannot count, so nothing may count in it.
WITHIN = {torch.float32: 1e-4, torch.bfloat16: 0.1}


@torch.no_grad()
def dtype(case: Case) -> None:
    """In float32 and bfloat16 the outputs are close to those in float64, in texts longer than bfloat16 can count."""
    exact = redraw(case.spec.build(dtype=torch.float64), 0.15)
    text = case.text(300, rows=1)
    want = exact(text.ids, **text.given, sources=case.sources([0], exact))
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
    arguments = arguments_of(case, case.text(9))
    want, _ = case.model.step(*arguments[:4], sources=arguments[4])
    # nothing but shapes: traced, since a step that is traced asks nothing of the host
    model, there = _moved(case, "meta"), _to(arguments, "meta")
    out, _ = torch.export.export(Step(model), there).module()(*there)
    hold(out.device.type == "meta", f"on the meta device the outputs are on {out.device}")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type != "mps":  # which has no float64
        model, there = _moved(case, accelerator), _to(arguments, accelerator)
        real = slice(None) if arguments[1] is None else arguments[1]
        agree(model.step(*there[:4], sources=there[4])[0].cpu()[real], want[real], f"on {accelerator}")


def _moved(case: Case, device: torch.device | str) -> Model:
    """A copy of the model there; its states are there too."""
    model = copy.deepcopy(case.model).to(device)
    if case.has_state:
        past = model.init_state(3, capacity=8, sources=_to(case.sources(), device)).past
        elsewhere = {str(x.device) for x in tensors(past)} - {str(torch.empty(0, device=device).device)}
        hold(not elsewhere, f"a state's tensors are on {sorted(elsewhere)}, the model on {device}")
    return model


def _to(value: T, device: torch.device | str) -> T:
    return tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, value)
