"""Rates say how fast each pair of channels turns, and by what its cosine and sine are multiplied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from anyformer.core.spec import Site, Spec

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


class Rates(Spec, ABC):
    """A pair's turns, in the place of theta^(-2i/R)."""

    def fits(self, at: Site, pairs: int) -> None:
        """Refuse a number of pairs that cannot be turned so."""

    @abstractmethod
    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        """Radians a token, (R/2,) or (B, 1 or T, R/2), and the factor on cosine and sine.

        powers: (R/2,), -2i/R, so that `theta**powers` is what is not scaled.
        """


LENGTH = {  # what rates that look for themselves how long a text is cannot keep
    "state": "how fast pairs turn depends on how long the whole text is, and a text that comes in pieces does not say",
}


def lengths(where: Where) -> Tensor:
    """(B, 1 or T, 1): how far the coordinates of each token's own text go."""
    coords = where.coords[..., 0].masked_fill(~where.real, -1)
    if "start" not in where.labels:
        return coords.amax(1)[:, None, None] + 1
    start = where.labels["start"]
    others = start[:, :, None] != start[:, None]  # tokens of another text in the same row
    return coords[:, None].masked_fill(others, -1).amax(2)[..., None] + 1
