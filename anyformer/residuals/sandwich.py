"""Sandwich norm (Ding et al. 2021, CogView; Gemma 2): x + norm₂(f(norm₁(x))), a norm on either side of the part."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, ResidualSpec, Site, spec
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.base import PerPart, Residual


@spec
class Sandwich(ResidualSpec):
    """x + norm₂(f(norm₁(x))) (Ding et al. 2021).

    norm: of what a part reads; with `no_norm` it is OLMo 2's x + norm(f(x)). after: of what it says, after dropout.
    """

    norm: Norm = LayerNorm()
    after: Norm = LayerNorm()
    dropout: Fraction = 0.0

    def build(self, at: Site) -> SandwichResidual:
        return SandwichResidual(self, at)


class SandwichResidual(Residual):
    """norm, after: one of each for each part that joins."""

    def __init__(self, spec: Sandwich, at: Site) -> None:
        super().__init__(at)
        self.dropout = spec.dropout
        self.norm = PerPart(at.at("norm"), spec.norm)
        self.after = PerPart(at.at("after"), spec.after)

    def enter(self, part: str, x: Tensor) -> Tensor:
        return self.norm[part](x)

    def leave(self, part: str, x: Tensor, y: Tensor) -> Tensor:
        return x + self.after[part](F.dropout(y, self.dropout, self.training))
