"""RMSNorm whose gain is stored less 1 (Gemma 2024): y = (1 + w) x / sqrt(mean x² + eps), rounded once, at the end."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import zeros
from anyformer.core.layer import Part
from anyformer.core.spec import NormSpec, Positive, Site, spec


@spec
class OffsetRMSNorm(NormSpec):
    """RMSNorm whose weights begin at 0 and are counted from 1 (Gemma 2024)."""

    eps: Positive = 1e-6

    def build(self, at: Site) -> OffsetRMSNormPart:
        return OffsetRMSNormPart(self, at)


class OffsetRMSNormPart(Part):
    """weight: (C,)."""

    weight: Tensor

    def __init__(self, spec: OffsetRMSNorm, at: Site) -> None:
        super().__init__(at)
        self.eps = spec.eps
        self.param("weight", ("C",), {"C": at.width}, zeros)

    def forward(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)  # 1 + w loses most digits of a small w in bfloat16
        return F.rms_norm(x.to(exact), x.shape[-1:], 1 + self.weight.to(exact), self.eps).to(x.dtype)
