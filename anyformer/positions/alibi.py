"""ALiBi (Press et al. 2022): subtract a per-head slope times the distance.

score_ij = q_i . k_j - m_h |i - j|,  m_h = 2^(-8h/H) for h = 1 … H, H a power of two; for other H the slopes of the
power below, then every second one of the power above.
"""

from __future__ import annotations

from math import floor, log2

import torch
from torch import Generator, Tensor

from anyformer.core.context import Where
from anyformer.core.spec import PositionSpec, Site, spec
from anyformer.positions.base import OnScores, on_a_line


def slopes(heads: int) -> list[float]:
    """m_h for every head."""
    power = 2 ** floor(log2(heads))
    own = [2.0 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2.0 ** (-4 * h / power) for h in range(1, 2 * power + 1, 2)]
    return (own + between)[:heads]


@spec
class ALiBi(PositionSpec):
    """A distance penalty with a slope per head (Press et al. 2022)."""

    def build(self, at: Site) -> ALiBiPosition:
        return ALiBiPosition(at)


class ALiBiPosition(OnScores):
    """slopes: (H,), fixed."""

    slopes: Tensor

    def __init__(self, at: Site) -> None:
        super().__init__(at)
        on_a_line(at)
        if at.heads is None:
            raise ValueError(f"{at.path}: ALiBi has a slope per head and stands in the mixers; there are no heads here")
        heads = at.heads

        def fill(tensor: Tensor, generator: Generator) -> None:
            tensor.copy_(torch.tensor(slopes(heads), dtype=torch.float64))

        self.buffer("slopes", (heads,), fill)

    def forward(self, q: Where, k: Where) -> Tensor:
        distance = (q.coords[:, :, None, 0] - k.coords[:, None, :, 0]).abs()  # (B, T, S)
        return -self.slopes[:, None, None] * distance[:, None]
