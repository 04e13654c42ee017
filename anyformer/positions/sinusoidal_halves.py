"""Fixed sinusoids with all sines before all cosines, as Marian and Pegasus have them (Junczys-Dowmunt et al. 2018).

PE[p, i] = sin(p / theta^(2i/C)),  PE[p, C/2 + i] = cos(p / theta^(2i/C)),  each rounded to float32 as in their tables.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.spec import PositionSpec, Positive, Site, spec
from anyformer.positions.sinusoidal import Waves


@spec
class SinusoidalHalves(PositionSpec):
    """Fixed sinusoids, all sines before all cosines (Marian: Junczys-Dowmunt et al. 2018)."""

    theta: Positive = 10_000.0

    def build(self, at: Site) -> SinusoidalHalvesPosition:
        return SinusoidalHalvesPosition(self.theta, at)


class SinusoidalHalvesPosition(Waves):
    """Sines, then cosines."""

    def forward(self, x: Tensor, where: Where) -> Tensor:
        width = x.shape[-1]
        rates = self.theta ** (torch.arange(0, width, 2, dtype=torch.float64, device=x.device) / width)
        phase = where.coords[..., :1].double() / rates  # (B, T, C/2)
        return x + torch.cat([phase.sin(), phase.cos()], -1).to(torch.float32).to(x.dtype)
