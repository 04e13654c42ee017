"""Dynamic NTK-aware scaling (bloc97, emozilla 2023): a larger theta, which slows the slowest pair most.

theta'^(-2i/R),  theta' = theta s^(R/(R-2)),  s = f (T/M - 1) + 1: the slowest pair is s times slower
T: tokens of the text, at least M;  M: those of a text in training;  f: the factor
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from anyformer.core.spec import Count, Positive, Site, spec
from anyformer.positions.rates.base import LENGTH, Rates, lengths

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


def two_pairs(at: Site, pairs: int) -> None:
    """Refuse a single pair, which is the slowest and the fastest at once."""
    if pairs < 2:
        raise ValueError(f"{at.path}: an NTK scaling needs two or more pairs that turn; here there is {pairs}")


def slowed(theta: float, powers: Tensor, slower: float | Tensor) -> Tensor:
    """The rates of a theta that makes the slowest pair so many times slower."""
    pairs = len(powers)
    return (theta * slower ** (pairs / (pairs - 1))) ** powers


@spec
class NTK(Rates):
    """A larger theta, for one length of texts (bloc97, emozilla 2023).

    trained: tokens of a text in training. length: those of the longest text to come; shorter ones are turned as it is.
    """

    factor: Positive
    trained: Count
    length: Count

    def fits(self, at: Site, pairs: int) -> None:
        two_pairs(at, pairs)

    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        length = max(self.length, self.trained)
        return slowed(theta, powers, self.factor * (length / self.trained - 1) + 1), 1.0


@spec
class PublishedNTK(Rates):
    """A larger theta the longer the text is, so that it cannot be cut into calls (bloc97, emozilla 2023)."""

    EXEMPT: ClassVar = LENGTH

    factor: Positive
    trained: Count

    @classmethod
    def examples(cls) -> tuple[PublishedNTK, ...]:
        return (cls(factor=1.7, trained=6),)

    def fits(self, at: Site, pairs: int) -> None:
        two_pairs(at, pairs)

    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        length = lengths(where).to(powers.dtype).clamp(min=self.trained)
        return slowed(theta, powers, self.factor * (length / self.trained - 1) + 1), 1.0
