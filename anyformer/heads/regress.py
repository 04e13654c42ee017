"""Numbers of whole texts (as BERT does for STS-B; Devlin et al. 2019): y = W p + b of a pooled vector p.

The loss of a row is the mean over its K numbers of (y - target)².
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.linear import Linear
from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, HeadSpec, Site, Size, spec
from anyformer.feedforward.activations import Activation
from anyformer.heads.pooling import WHOLE, Pool, Pooler
from anyformer.norms.nothing import NoNorm


@spec
class Regress(HeadSpec):
    """Numbers for each text, with a squared error (as BERT for STS-B; Devlin et al. 2019).

    outputs: how many numbers. hidden, activation, dropout, hidden_bias, norm: as `classify` has them.
    """

    EXEMPT: ClassVar = WHOLE

    outputs: Size = 1
    pool: Pool = "first"
    hidden: bool = False
    activation: Activation = "tanh"
    dropout: Fraction = 0.0
    bias: bool = True
    hidden_bias: bool = True
    norm: Norm = NoNorm()

    @classmethod
    def examples(cls) -> tuple[Regress, ...]:
        return (cls(outputs=2, pool="mean"),)

    def build(self, at: Site) -> RegressHead:
        return RegressHead(self, at)


class RegressHead(Head):
    """pooler, then out: (K, C)."""

    pools = True

    def __init__(self, spec: Regress, at: Site) -> None:
        super().__init__(at)
        hidden = spec.activation, spec.hidden_bias, spec.norm
        self.pooler = Pooler(at.at("pooler"), spec.pool, spec.hidden, spec.dropout, *hidden)
        self.out = Linear(at.at("out"), "K", "C", {"K": spec.outputs, "C": at.width}, spec.bias)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> (B, K)."""
        return self.out(self.pooler(h, where))

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        """(B,) of targets (B, K), numbers; (B,) will do where K is 1. Every number counts, -100 too."""
        if smoothing:
            raise ValueError(f"{self.path}: smoothing is of classes; this head says numbers")
        said = self(h, where)
        if targets.shape not in (said.shape, said.squeeze(1).shape):
            raise ValueError(f"{self.path}: targets must be {tuple(said.shape)}; came {tuple(targets.shape)}")
        exact = torch.promote_types(said.dtype, torch.float32)
        return (said - targets.view_as(said).to(exact)).square().mean(1)
