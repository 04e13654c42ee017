"""How a law says that it was broken, and how two results are compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Broken(AssertionError):
    """A law that did not hold; the message is one line, with the first difference."""


def hold(condition: bool, message: str) -> None:
    """Broken unless the condition holds."""
    if not condition:
        raise Broken(message)


def agree(got: Tensor, want: Tensor, what: str, within: float = 1e-9) -> None:
    """Equal up to `within`, relative to the largest number; the first place where they are not is named."""
    hold(got.shape == want.shape, f"{what}: the shape is {tuple(got.shape)}, not {tuple(want.shape)}")
    if not want.numel():
        return
    off = (got.double() - want.double()).abs()
    allowed = within * (1 + want.double().abs().max())
    wrong = ~(off <= allowed)  # NaN is wrong
    if bool(wrong.any()):
        place = tuple(int(i) for i in wrong.nonzero()[0])
        numbers = f"{got[place].item():.6g}, not {want[place].item():.6g}"
        most = f"{int(wrong.sum())} of {wrong.numel()} differ, by up to {off[wrong].max().item():.2g}"
        raise Broken(f"{what}: at {list(place)} it is {numbers}; {most}")


def refuses(attempt: Callable[[], object], what: str) -> None:
    """Broken unless `attempt` raises ValueError."""
    try:
        attempt()
    except ValueError:
        return
    raise Broken(f"{what}: nothing was refused")


def finite(tensor: Tensor, what: str) -> None:
    """No NaN and no infinity."""
    hold(bool(torch.isfinite(tensor).all()), f"{what}: not all numbers are finite")
