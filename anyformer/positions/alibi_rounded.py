"""ALiBi as Falcon has it (Almazrouei et al. 2023): added before scores are scaled, and rounded to bfloat16.

score_ij = scale b(b(m_h) b(j)), the slopes m_h being ALiBi's; b rounds to bfloat16

Without b that is -scale m_h (i - j), up to a number that is the same for all keys. With it distant positions share one
penalty, which the checkpoints have been trained with.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from anyformer.core.context import Where
from anyformer.core.spec import PositionSpec, Positive, Site, spec
from anyformer.positions.alibi import slopes
from anyformer.positions.base import OnScores, on_a_line


@spec
class RoundedALiBi(PositionSpec):
    """A bonus that grows with a key's position, in the steps of bfloat16 (Falcon, Almazrouei et al. 2023).

    scale: of the scores there, 1/sqrt(head_size).
    """

    scale: Positive = 1.0

    def build(self, at: Site) -> RoundedALiBiPosition:
        return RoundedALiBiPosition(self, at)


class RoundedALiBiPosition(OnScores):
    """slopes: (H,), fixed."""

    slopes: Tensor

    def __init__(self, spec: RoundedALiBi, at: Site) -> None:
        super().__init__(at)
        on_a_line(at)
        if at.heads is None:
            raise ValueError(f"{at.path}: ALiBi has a slope per head and stands in the mixers; there are no heads here")
        heads, self.scale = at.heads, spec.scale

        def fill(tensor: Tensor, generator: Generator) -> None:
            tensor.copy_(torch.tensor(slopes(heads), dtype=torch.float64))

        self.buffer("slopes", (heads,), fill)

    def forward(self, q: Where, k: Where) -> Tensor:
        places = k.coords[:, None, None, :, 0].bfloat16()  # (B, 1, 1, S)
        # bfloat16's product is that of float32, rounded; not every runtime multiplies in bfloat16
        product = (self.slopes.bfloat16().float()[:, None, None] * places.float()).bfloat16()
        bonus = product.to(self.slopes.dtype) * self.scale
        return bonus.expand(-1, -1, q.time.shape[1], -1)
