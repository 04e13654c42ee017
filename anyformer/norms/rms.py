"""RMSNorm (Zhang & Sennrich 2019): y = g x / sqrt(mean x² + eps). Scale goes, the mean stays."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import ones
from anyformer.core.layer import Part
from anyformer.core.spec import NormSpec, Positive, Site, spec


@spec
class RMSNorm(NormSpec):
    """Root mean square 1 per token (Zhang & Sennrich 2019)."""

    eps: Positive = 1e-6

    def build(self, at: Site) -> RMSNormPart:
        return RMSNormPart(self, at)


class RMSNormPart(Part):
    """weight: (C,)."""

    weight: Tensor

    def __init__(self, spec: RMSNorm, at: Site) -> None:
        super().__init__(at)
        self.eps = spec.eps
        self.param("weight", ("C",), {"C": at.width}, ones)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
