"""Llama 3.1's rates (Grattafiori et al. 2024): pairs that turn many times within a text of training keep their rate.

r_i = theta^(-2i/R),  n_i = M r_i / 2π, how often pair i turns within M tokens
t_i = clip((n_i - low) / (high - low), 0, 1),  t_i r_i + (1 - t_i) r_i / s
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

from pydantic import model_validator

from anyformer.core.spec import Count, Positive, spec
from anyformer.positions.rates.base import Rates

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@spec
class Llama3(Rates):
    """Slow pairs slower, fast pairs as they were (Grattafiori et al. 2024).

    trained: tokens of a text in training. low, high: a pair that turns less often within them is slowed by the whole
    factor, one that turns more often not at all.
    """

    factor: Positive
    trained: Count
    low: Positive = 1.0
    high: Positive = 4.0

    @model_validator(mode="after")
    def _between(self) -> Llama3:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be less than high ({self.high})")
        return self

    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        plain = theta**powers
        often = self.trained / (2 * pi) * plain
        kept = ((often - self.low) / (self.high - self.low)).clamp(0, 1)
        return kept * plain + (1 - kept) * plain / self.factor, 1.0
