"""Fixed sinusoids added to the embeddings (Vaswani et al. 2017, section 3.5).

PE[p, 2i] = sin(p / theta^(2i/C)),  PE[p, 2i+1] = cos(p / theta^(2i/C))
"""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.spec import PositionSpec, Positive, Site, spec
from anyformer.positions.base import OnEmbeddings, on_a_line


@spec
class Sinusoidal(PositionSpec):
    """Fixed sinusoids added to the embeddings (Vaswani et al. 2017)."""

    theta: Positive = 10_000.0

    def build(self, at: Site) -> SinusoidalPosition:
        return SinusoidalPosition(self.theta, at)


class Waves(OnEmbeddings, ABC):
    """Needs no table, so there is no longest text."""

    def __init__(self, theta: float, at: Site) -> None:
        super().__init__(at)
        on_a_line(at)
        if at.width % 2:
            raise ValueError(f"{at.path}: sinusoids come in pairs; width ({at.width}) must be even")
        self.theta = theta


class SinusoidalPosition(Waves):
    """A sine beside each cosine."""

    def forward(self, x: Tensor, where: Where) -> Tensor:
        width, dtype = x.shape[-1], torch.promote_types(x.dtype, torch.float32)
        rates = self.theta ** (-torch.arange(0, width, 2, dtype=dtype, device=x.device) / width)
        phase = where.coords[..., :1].to(dtype) * rates  # (B, T, C/2)
        return x + torch.stack([phase.sin(), phase.cos()], -1).flatten(-2).to(x.dtype)
