"""Rotary positions (Su et al. 2021): channel pair i of a query or key is turned by the angle p theta^(-2i/R).

A score then depends on the distance of the two tokens alone. Pairs are (i, i + R/2), the layout of GPT-NeoX and Llama
as published for Transformers, or (2i, 2i + 1), the paper's; R is the number of channels that turn. A scaling puts other
rates in the place of theta^(-2i/R).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.spec import PositionSpec, Positive, Rows, Site, Size, spec
from anyformer.positions.base import OnPairs, on_a_line
from anyformer.positions.rates.base import Rates

Scaling = Annotated[Rates, Rows("anyformer.positions.rates")]


@spec
class Rotary(PositionSpec):
    """Rotary positions (Su et al. 2021).

    channels: how many of a head's channels turn; None: all of them. scaling: how fast each pair turns; None: unscaled.
    """

    theta: Positive = 10_000.0
    channels: Size | None = None
    pairs: Literal["halves", "neighbours"] = "halves"
    scaling: Scaling | None = None

    def build(self, at: Site) -> RotaryPosition:
        return RotaryPosition(self, at)


class RotaryPosition(OnPairs):
    """Turns the first `channels` of each head."""

    def __init__(self, spec: Rotary, at: Site) -> None:
        super().__init__(at)
        on_a_line(at)
        size = at.head_size or at.width
        self.channels = spec.channels or size
        if self.channels % 2 or self.channels > size:
            raise ValueError(
                f"{at.path}: rotary channels ({self.channels}) must be even and at most head_size ({size})"
            )
        self.theta, self.halves, self.scaling = spec.theta, spec.pairs == "halves", spec.scaling
        if spec.scaling is not None:
            spec.scaling.fits(at.at("scaling"), self.channels // 2)
            self.uncut = spec.scaling.EXEMPT.get("state", "")

    def forward(self, x: Tensor, where: Where) -> Tensor:
        size, dtype = self.channels, torch.promote_types(x.dtype, torch.float32)
        powers = -torch.arange(0, size, 2, dtype=dtype, device=x.device) / size
        rates, amplitude = self.rates(powers, where)
        phase = where.coords[..., :1].to(dtype) * rates  # (B, T, R/2)
        cos, sin = phase.cos()[:, :, None], phase.sin()[:, :, None]
        if amplitude != 1:
            cos, sin = amplitude * cos, amplitude * sin
        turned, rest = x[..., :size].to(dtype), x[..., size:]
        if self.halves:
            a, b = turned.chunk(2, -1)
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        else:
            a, b = turned[..., ::2], turned[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        return torch.cat([turned.to(x.dtype), rest], -1) if rest.shape[-1] else turned.to(x.dtype)

    def rates(self, powers: Tensor, where: Where) -> tuple[Tensor, float]:
        """Radians a token, and the factor on cosine and sine."""
        return (self.theta**powers, 1.0) if self.scaling is None else self.scaling.turns(self.theta, powers, where)
