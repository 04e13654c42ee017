"""Position interpolation (Chen et al. 2023): every pair turns s times slower, theta^(-2i/R) / s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.spec import Positive, spec
from anyformer.positions.rates.base import Rates

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@spec
class Linear(Rates):
    """All pairs slower by one factor (Chen et al. 2023)."""

    factor: Positive

    def turns(self, theta: float, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        return theta**powers / self.factor, 1.0
