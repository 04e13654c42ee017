"""Proportional rotary positions (Gemma 4): a share of the pairs turns, the fastest ones, at theta^(-2i/R) / s.

Rotary's `channels` leaves channels out instead: the pairs that are left then have the rates of a smaller head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.spec import Fraction, Positive, spec
from anyformer.positions.rates.base import Rates

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@spec
class Proportional(Rates):
    """The fastest pairs turn, the others do not (Gemma 4).

    share: of the pairs. factor: how much slower they turn.
    """

    share: Fraction
    factor: Positive = 1.0

    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        from torch.nn.functional import pad

        count = int(self.share * len(powers))
        return pad(theta ** powers[:count] / self.factor, (0, len(powers) - count)), 1.0
