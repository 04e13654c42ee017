"""LongRoPE (Ding et al. 2024; Phi-3): a factor was searched for every pair, for short texts and for long ones.

theta^(-2i/R) / f_i,  f the short factors up to M tokens, the long ones beyond;  M those of a text in training
cos and sin times sqrt(1 + ln s / ln M) where nothing else is said, s the longest text over M
"""

from __future__ import annotations

from math import log, sqrt
from typing import TYPE_CHECKING, ClassVar

from anyformer.core.spec import Count, Positive, Site, spec
from anyformer.positions.rates.base import LENGTH, Rates, lengths

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where

Factors = tuple[Positive, ...]
SHORT, LONG = (1.0, 1.1, 1.5), (1.3, 2.9, 7.1)  # of the examples


def amplitude(factor: float, trained: int) -> float:
    """What cosine and sine are multiplied by where the longest text is `factor` times those of training."""
    return sqrt(1 + log(factor) / log(trained)) if factor > 1 else 1.0


def one_a_pair(at: Site, pairs: int, **factors: Factors) -> None:
    """Refuse lists that are longer or shorter than the pairs that turn."""
    for name, given in factors.items():
        if len(given) != pairs:
            raise ValueError(f"{at.path}.{name}: a factor for each of the {pairs} pairs that turn; came {len(given)}")


@spec
class LongRoPE(Rates):
    """A searched factor for every pair, for one length of texts (Ding et al. 2024).

    short, long: the factors. trained: tokens of a text in training. length: those of the longest text to come; with
    more than `trained` the long factors are taken, for shorter texts too. amplitude: on cosine and sine.
    """

    short: Factors
    long: Factors
    trained: Count
    length: Count
    amplitude: Positive

    @classmethod
    def examples(cls) -> tuple[LongRoPE, ...]:
        return (cls(short=SHORT, long=LONG, trained=9, length=23, amplitude=1.2),)

    def fits(self, at: Site, pairs: int) -> None:
        one_a_pair(at, pairs, short=self.short, long=self.long)

    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        factors = self.long if self.length > self.trained else self.short
        return theta**powers / powers.new_tensor(factors), self.amplitude


@spec
class PublishedLongRoPE(Rates):
    """A searched factor for every pair, by how long the text is; it cannot be cut into calls (Ding et al. 2024).

    short, long: the factors. trained: tokens of a text in training. amplitude: on cosine and sine.
    """

    EXEMPT: ClassVar = LENGTH

    short: Factors
    long: Factors
    trained: Count
    amplitude: Positive

    @classmethod
    def examples(cls) -> tuple[PublishedLongRoPE, ...]:
        return (cls(short=SHORT, long=LONG, trained=9, amplitude=1.2),)

    def fits(self, at: Site, pairs: int) -> None:
        one_a_pair(at, pairs, short=self.short, long=self.long)

    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        short, long = powers.new_tensor(self.short), powers.new_tensor(self.long)
        factors = long.where(lengths(where) > self.trained, short)  # (B, 1 or T, R/2)
        return theta**powers / factors, self.amplitude
