"""Layer normalisation (Ba et al. 2016): y = g (x - mean x) / sqrt(var x + eps) + b, over the channels of one token."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import ones, zeros
from anyformer.core.layer import Part
from anyformer.core.spec import NormSpec, Positive, Site, spec


@spec
class LayerNorm(NormSpec):
    """Mean 0 and variance 1 per token (Ba et al. 2016)."""

    eps: Positive = 1e-5
    bias: bool = True

    def build(self, at: Site) -> LayerNormPart:
        return LayerNormPart(self, at)


class LayerNormPart(Part):
    """weight: (C,); bias: (C,) or None."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, spec: LayerNorm, at: Site) -> None:
        super().__init__(at)
        self.eps, size = spec.eps, {"C": at.width}
        self.param("weight", ("C",), size, ones)
        if spec.bias:
            self.param("bias", ("C",), size, zeros)
        else:
            self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
