"""LayerScale (Touvron et al. 2021, CaiT; DINOv2): x + g f(norm(x)), a learned gain per part and channel."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import constant
from anyformer.core.layer import Part
from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, Positive, ResidualSpec, Site, spec
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.base import PerPart, Residual


@spec
class LayerScale(ResidualSpec):
    """x + g f(norm(x)), a learned gain g per part and channel (Touvron et al. 2021).

    first: what the gains begin at; CaiT takes 0.1 for 18 blocks and 1e-6 for 36, DINOv2 1.
    """

    norm: Norm = LayerNorm()
    first: Positive = 0.1
    dropout: Fraction = 0.0

    def build(self, at: Site) -> LayerScaleResidual:
        return LayerScaleResidual(self, at)


class LayerScaleResidual(Residual):
    """norm, and scale: (C,), one of each for each part that joins."""

    def __init__(self, spec: LayerScale, at: Site) -> None:
        super().__init__(at)
        self.dropout = spec.dropout
        self.norm = PerPart(at.at("norm"), spec.norm)
        self.scale = Part(at.at("scale"))
        for part in at.joins:
            self.scale.param(part, ("C",), {"C": at.width}, constant(spec.first))

    def enter(self, part: str, x: Tensor) -> Tensor:
        return self.norm[part](x)

    def leave(self, part: str, x: Tensor, y: Tensor) -> Tensor:
        return x + self.scale.get_parameter(part) * F.dropout(y, self.dropout, self.training)
