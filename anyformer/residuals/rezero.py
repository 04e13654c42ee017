"""ReZero (Bachlechner et al. 2020): x + a f(x), a learned number per part that begins at 0."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import zeros
from anyformer.core.layer import Part
from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, ResidualSpec, Site, spec
from anyformer.norms.nothing import NoNorm
from anyformer.residuals.base import PerPart, Residual


@spec
class ReZero(ResidualSpec):
    """x + a f(x), a learned number a per part that begins at 0 (Bachlechner et al. 2020).

    norm: of what a part reads; the paper has none.
    """

    norm: Norm = NoNorm()
    dropout: Fraction = 0.0

    def build(self, at: Site) -> ReZeroResidual:
        return ReZeroResidual(self, at)


class ReZeroResidual(Residual):
    """scale: (1,) for each part that joins, an axis and not a bare scalar, so that it can be sharded."""

    def __init__(self, spec: ReZero, at: Site) -> None:
        super().__init__(at)
        self.dropout = spec.dropout
        self.norm = PerPart(at.at("norm"), spec.norm)
        self.scale = Part(at.at("scale"))
        for part in at.joins:
            self.scale.param(part, ("1",), {"1": 1}, zeros)

    def enter(self, part: str, x: Tensor) -> Tensor:
        return self.norm[part](x)

    def leave(self, part: str, x: Tensor, y: Tensor) -> Tensor:
        return x + self.scale.get_parameter(part) * F.dropout(y, self.dropout, self.training)
