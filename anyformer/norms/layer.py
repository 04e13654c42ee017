"""Layer normalisation (Ba et al. 2016): y = g (x - mean x) / sqrt(var x + eps) + b, over the channels of one token."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import ones, zeros
from anyformer.core.layer import Part
from anyformer.core.spec import NormSpec, Positive, Site, spec


@spec
class LayerNorm(NormSpec):
    """Mean 0 and variance 1 per token (Ba et al. 2016).

    gain, bias: whether g and b are learned; OLMo 1 (Groeneveld et al. 2024) has neither.
    """

    eps: Positive = 1e-5
    gain: bool = True
    bias: bool = True

    @classmethod
    def examples(cls) -> tuple[LayerNorm, ...]:
        return cls(), cls(gain=False, bias=False)

    def build(self, at: Site) -> LayerNormPart:
        return LayerNormPart(self, at)


class LayerNormPart(Part):
    """weight: (C,) or None; bias: (C,) or None."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, spec: LayerNorm, at: Site) -> None:
        super().__init__(at)
        self.eps = spec.eps
        for name, learned, fill in (("weight", spec.gain, ones), ("bias", spec.bias, zeros)):
            if learned:
                self.param(name, ("C",), {"C": at.width}, fill)
            else:
                self.register_parameter(name, None)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
