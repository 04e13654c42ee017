"""RMSNorm (Zhang & Sennrich 2019): y = g x / sqrt(mean x² + eps). Scale goes, the mean stays."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import ones
from anyformer.core.layer import Part
from anyformer.core.spec import NormSpec, Positive, Site, spec


@spec
class RMSNorm(NormSpec):
    """Root mean square 1 per token (Zhang & Sennrich 2019).

    gain: whether g is learned; without it only the scale is taken away.
    """

    eps: Positive = 1e-6
    gain: bool = True

    @classmethod
    def examples(cls) -> tuple[RMSNorm, ...]:
        return cls(), cls(gain=False)

    def build(self, at: Site) -> RMSNormPart:
        return RMSNormPart(self, at)


class RMSNormPart(Part):
    """weight: (C,) or None."""

    weight: Tensor | None

    def __init__(self, spec: RMSNorm, at: Site) -> None:
        super().__init__(at)
        self.eps = spec.eps
        if spec.gain:
            self.param("weight", ("C",), {"C": at.width}, ones)
        else:
            self.register_parameter("weight", None)

    def forward(self, x: Tensor) -> Tensor:
        y = F.rms_norm(x, x.shape[-1:], None, self.eps)  # in half precision rounded before the gain, as Llama does
        return y if self.weight is None else y * self.weight.to(y.dtype)  # they differ under autocast
