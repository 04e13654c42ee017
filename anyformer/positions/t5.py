"""T5's relative bias (Raffel et al. 2020, section 2.1): a learned number per head and bucket of distance.

With E exact buckets of N and distance n: bucket n if n < E, else min(N-1, E + floor(ln(n/E) / ln(furthest/E) (N-E))).
Causal: N buckets for n = max(i-j, 0), E = N/2. Both ways: N/2 buckets for each sign of the distance.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.fills import small
from anyformer.core.spec import PositionSpec, Site, Size, spec
from anyformer.positions.base import OnScores, on_a_line


@spec
class T5(PositionSpec):
    """A learned bias per head and bucket of distance (Raffel et al. 2020).

    both_ways: half of the buckets are for tokens ahead, as encoders need.
    """

    buckets: Size = 32
    furthest: Size = 128
    both_ways: bool = False

    def build(self, at: Site) -> T5Position:
        return T5Position(self, at)


class T5Position(OnScores):
    """weight: (N, H)."""

    weight: Tensor

    def __init__(self, spec: T5, at: Site) -> None:
        super().__init__(at)
        on_a_line(at)
        if at.heads is None:
            raise ValueError(f"{at.path}: T5's bias has a number per head and stands in the mixers, which have them")
        sides = 2 if spec.both_ways else 1
        if spec.buckets % (2 * sides) or spec.furthest <= spec.buckets // (2 * sides):
            raise ValueError(
                f"{at.path}: buckets ({spec.buckets}) must be a multiple of {2 * sides} and furthest beyond them"
            )
        self.spec = spec
        self.param("weight", ("N", "H"), {"N": spec.buckets, "H": at.heads}, small)

    def forward(self, q: Where, k: Where) -> Tensor:
        ahead = k.coords[:, None, :, 0] - q.coords[:, :, None, 0]  # (B, T, S)
        return self.weight[bucket(ahead, self.spec)].permute(0, 3, 1, 2)


def bucket(ahead: Tensor, spec: T5) -> Tensor:
    """The bucket of a key `ahead` = j - i tokens further on."""
    size, base = spec.buckets, torch.zeros_like(ahead)
    if spec.both_ways:
        size //= 2
        base, distance = (ahead > 0).long() * size, ahead.abs()
    else:
        distance = (-ahead).clamp(min=0)
    exact = size // 2
    ratio = (distance.clamp(min=exact).double() / exact).log() / log(spec.furthest / exact)
    # the published code rounds in float32; the nudge gives its buckets at exact powers
    far = (exact + (ratio * (size - exact) + 1e-9).long()).clamp(max=size - 1)
    return base + torch.where(distance < exact, distance, far)
