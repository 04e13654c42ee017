"""Gradients: the same whichever way the outputs were made, and the slope of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from anyformer.laws.broken import agree, hold
from anyformer.laws.case import Case, learnt, redraw, seeded, ways


def checkpointed(case: Case) -> None:
    """Recomputing activations in the backward pass changes neither outputs nor gradients."""
    text = case.text(13)
    plain, again = case.whole(text), case.whole(text, checkpoint=True)
    agree(again, plain, "outputs, checkpointed")
    _same(case, again, plain, "checkpointed")
    if case.has_state:
        _, state = case.feed(text, case.state(), (6,))
        rest = text.between(6, 13)
        out, _ = case.model(rest.ids, state, **rest.given, checkpoint=True)
        agree(out, plain[:, 6:], "outputs, checkpointed with a state")
        _same(case, out, plain[:, 6:], "checkpointed with a state")


def calls(case: Case) -> None:
    """Gradients through several calls are those of one call."""
    text = case.text(21)
    whole = case.whole(text)
    for way in ways(21)[:2]:
        out, _ = case.feed(text, case.state(way), (7, 1, 6, 7))
        _same(case, out, whole, f"calls of 7, 1, 6 and 7 tokens, {way}")


def _same(case: Case, got: Tensor, want: Tensor, what: str) -> None:
    weights = torch.randn(want.shape, dtype=want.dtype, generator=seeded(9))
    named = learnt(case.model)
    ours, theirs = (
        torch.autograd.grad((out * weights).sum(), list(named.values()), allow_unused=True, retain_graph=True)
        for out in (got, want)
    )
    for name, a, b in zip(named, ours, theirs, strict=True):
        hold((a is None) == (b is None), f"{what}: only one of the two has a gradient of {name}")
        if a is not None and b is not None:
            agree(a, b, f"{what}: gradient of {name}")


def slope(case: Case) -> None:
    """The gradient is the slope of the loss: none of it is lost on the way, between segments or elsewhere."""
    model = redraw(case.spec.build(dtype=torch.float64), 0.3)
    text = case.text(13)

    def loss() -> Tensor:
        out = model(text.ids, **text.given, sources=case.sources(model=model)).tanh()
        late = out if case.pools else out[:, 6:]  # early tokens matter through the past alone
        return (late * torch.randn(late.shape[1:], dtype=late.dtype, generator=seeded(10))).sum()

    named = learnt(model)
    gradients = torch.autograd.grad(loss(), list(named.values()), allow_unused=True)
    step = 1e-5
    for (name, parameter), gradient, direction in zip(named.items(), gradients, _directions(named), strict=True):
        with torch.no_grad():
            values = []
            for sign in (1, -2):
                parameter.add_(sign * step * direction)
                values.append(loss())
            parameter.add_(step * direction)
        measured = (values[0] - values[1]) / (2 * step)
        said = torch.zeros(()) if gradient is None else (gradient * direction).sum()
        agree(said, measured, f"slope along a random direction of {name}", within=1e-5)


def _directions(named: Mapping[str, Tensor]) -> Iterator[Tensor]:
    for index, parameter in enumerate(named.values()):
        yield torch.randn(parameter.shape, dtype=parameter.dtype, generator=seeded(11, index))
