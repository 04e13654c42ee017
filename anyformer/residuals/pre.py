"""Pre-norm (Xiong et al. 2020): x + c f(norm(x)). The stream itself is normalised once, at the end of the stack."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, Positive, ResidualSpec, Site, spec
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.base import PerPart, Residual


@spec
class Pre(ResidualSpec):
    """x + f(norm(x)) (Xiong et al. 2020).

    scale: c, what a part says is multiplied by (Granite). mixer_norm: another norm before the mixer alone (ModernBERT's
    first layer: `no_norm`).
    """

    norm: Norm = LayerNorm()
    scale: Positive = 1.0
    dropout: Fraction = 0.0
    mixer_norm: Norm | None = None

    def build(self, at: Site) -> PreResidual:
        return PreResidual(self, at)


class PreResidual(Residual):
    """norm: one for each part that joins."""

    def __init__(self, spec: Pre, at: Site) -> None:
        super().__init__(at)
        self.scale, self.dropout = spec.scale, spec.dropout
        self.norm = PerPart(at.at("norm"), spec.norm, spec.mixer_norm)

    def enter(self, part: str, x: Tensor) -> Tensor:
        return self.norm[part](x)

    def leave(self, part: str, x: Tensor, y: Tensor) -> Tensor:
        said = F.dropout(y, self.dropout, self.training)
        return x + (said if self.scale == 1 else self.scale * said)
