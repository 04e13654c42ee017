"""ScaleNorm (Nguyen & Salazar 2019): y = g x / |x|. Every vector gets the same learned length g, at first sqrt C."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import constant
from anyformer.core.layer import Part
from anyformer.core.spec import NormSpec, Positive, Site, spec


@spec
class ScaleNorm(NormSpec):
    """One learned length for all vectors (Nguyen & Salazar 2019).

    eps: the least length that is divided by.
    """

    eps: Positive = 1e-5

    def build(self, at: Site) -> ScaleNormPart:
        return ScaleNormPart(self, at)


class ScaleNormPart(Part):
    """weight: (1,), an axis and not a bare scalar, so that it can be sharded."""

    weight: Tensor

    def __init__(self, spec: ScaleNorm, at: Site) -> None:
        super().__init__(at)
        self.eps = spec.eps
        self.param("weight", ("1",), {"1": 1}, constant(sqrt(at.width)))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # the length of a wide vector needs its digits
        return (self.weight * F.normalize(wide, dim=-1, eps=self.eps)).to(x.dtype)
