"""DeepNorm (Wang et al. 2022): norm(alpha x + f(x)). Post-norm that trains at a thousand layers.

alpha = (K N)^(1/4),  beta = (4 K N)^(-1/4)  for a stack of N blocks of K parts each
encoder alone, decoder alone: K = 2;  decoder that reads an encoder: K = 3
encoder of N blocks that a decoder of M blocks reads: alpha = 0.81 (N⁴ M)^(1/16),  beta = 0.87 (N⁴ M)^(-1/16)

beta multiplies the first weights of the parts, so that all they add up to is as small as the first steps can bear.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, Positive, ResidualSpec, Site, spec
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.base import PerPart, Residual


@spec
class DeepNorm(ResidualSpec):
    """norm(alpha x + f(x)), with alpha and the parts' first weights by depth (Wang et al. 2022).

    alpha: of the stream. beta: what the first weights of the parts beside it are multiplied by: values, outputs and all
    of a feed-forward, but neither queries and keys nor routers. None: by depth; only the encoder that a decoder reads
    has to be told both.
    """

    norm: Norm = LayerNorm()
    alpha: Positive | None = None
    beta: Positive | None = None
    dropout: Fraction = 0.0

    @classmethod
    def examples(cls) -> tuple[DeepNorm, ...]:
        return (cls(beta=1.0),)  # a law says that no part touches its neighbours' first weights; this is the exception

    def build(self, at: Site) -> DeepNormResidual:
        return DeepNormResidual(self, at)


class DeepNormResidual(Residual):
    """norm: one for each part that joins."""

    def __init__(self, spec: DeepNorm, at: Site) -> None:
        super().__init__(at)
        joins = len(at.joins) * at.depth[1]  # along the whole stack
        self.alpha = spec.alpha or joins**0.25
        self.gain = spec.beta or (4 * joins) ** -0.25
        self.dropout = spec.dropout
        self.norm = PerPart(at.at("norm"), spec.norm)

    def enter(self, part: str, x: Tensor) -> Tensor:
        return x

    def leave(self, part: str, x: Tensor, y: Tensor) -> Tensor:
        return self.norm[part](self.alpha * x + F.dropout(y, self.dropout, self.training))
