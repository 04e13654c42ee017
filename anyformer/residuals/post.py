"""Post-norm (Vaswani et al. 2017, section 3.1): norm(x + f(x))."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, ResidualSpec, Site, spec
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.base import PerPart, Residual


@spec
class Post(ResidualSpec):
    """norm(x + f(x)) (Vaswani et al. 2017)."""

    norm: Norm = LayerNorm()
    dropout: Fraction = 0.0

    def build(self, at: Site) -> PostResidual:
        return PostResidual(self, at)


class PostResidual(Residual):
    """norm: one for each part that joins."""

    def __init__(self, spec: Post, at: Site) -> None:
        super().__init__(at)
        self.dropout = spec.dropout
        self.norm = PerPart(at.at("norm"), spec.norm)

    def enter(self, part: str, x: Tensor) -> Tensor:
        return x

    def leave(self, part: str, x: Tensor, y: Tensor) -> Tensor:
        return self.norm[part](x + F.dropout(y, self.dropout, self.training))
