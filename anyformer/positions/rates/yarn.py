"""YaRN (Peng et al. 2023): slow pairs are interpolated, fast ones left, with a ramp between; scores grow a little.

r_i = theta^(-2i/R),  at(n) = R ln(M / 2πn) / (2 ln theta), the place of the pair that turns n times within M tokens
t_i = clip((i - at(fast)) / (at(slow) - at(fast)), 0, 1),  (1 - t_i) r_i + t_i r_i / s,  cos and sin times 0.1 ln s + 1
"""

from __future__ import annotations

from math import ceil, floor, log, pi
from typing import TYPE_CHECKING

from anyformer.core.spec import Count, Positive, spec
from anyformer.positions.rates.base import Rates

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


def amplitude(factor: float, weight: float = 1.0) -> float:
    """What cosine and sine are multiplied by; DeepSeek takes the ratio of two, whose weights differ."""
    return 0.1 * weight * log(factor) + 1 if factor > 1 else 1.0


@spec
class YaRN(Rates):
    """Slow pairs interpolated, fast pairs as they were (Peng et al. 2023).

    trained: tokens of a text in training. fast, slow: how often the first pair that is slowed, and the first that is
    slowed by the whole factor, turn within them. rounded: whether both are moved outwards to whole numbers of pairs.
    amplitude: on cosine and sine; None: 0.1 ln(factor) + 1.
    """

    factor: Positive
    trained: Count
    fast: Positive = 32.0
    slow: Positive = 1.0
    rounded: bool = True
    amplitude: Positive | None = None

    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        import torch

        pairs = len(powers)
        first, last = (pairs * log(self.trained / (2 * pi * often)) / log(theta) for often in (self.fast, self.slow))
        if self.rounded:
            first, last = floor(first), ceil(last)
        first, last = max(first, 0), min(last, 2 * pairs - 1)  # of channels, not of pairs: as published
        place = torch.arange(pairs, dtype=powers.dtype, device=powers.device)
        slowed = ((place - first) / (last - first or 0.001)).clamp(0, 1)
        plain = theta**powers
        rates = (1 - slowed) * plain + slowed * plain / self.factor
        return rates, amplitude(self.factor) if self.amplitude is None else self.amplitude
