"""Every class that a text has, none or many (multi-label classification): p = sigmoid(W x + b) of a pooled vector x.

The loss of a row is the mean over its K classes of -log p where the text has the class, of -log(1 - p) where not.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.linear import Linear
from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, HeadSpec, Site, spec
from anyformer.feedforward.activations import Activation
from anyformer.heads.base import Labels, count
from anyformer.heads.pooling import WHOLE, Pool, Pooler
from anyformer.norms.nothing import NoNorm


@spec
class Mark(HeadSpec):
    """Every class that a text has, each decided by itself.

    labels: the names of the classes. hidden, activation, dropout, hidden_bias, norm: as `classify` has them.
    """

    EXEMPT: ClassVar = WHOLE

    labels: Labels
    pool: Pool = "first"
    hidden: bool = False
    activation: Activation = "tanh"
    dropout: Fraction = 0.0
    bias: bool = True
    hidden_bias: bool = True
    norm: Norm = NoNorm()

    @classmethod
    def examples(cls) -> tuple[Mark, ...]:
        return (cls(labels=("rude", "long", "late"), hidden=True),)

    def build(self, at: Site) -> MarkHead:
        return MarkHead(self, at)


class MarkHead(Head):
    """pooler, then out: (K, C)."""

    pools = True

    def __init__(self, spec: Mark, at: Site) -> None:
        super().__init__(at)
        hidden = spec.activation, spec.hidden_bias, spec.norm
        self.pooler = Pooler(at.at("pooler"), spec.pool, spec.hidden, spec.dropout, *hidden)
        self.out = Linear(at.at("out"), "K", "C", {"K": count(spec.labels, at), "C": at.width}, spec.bias)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> logits (B, K)."""
        return self.out(self.pooler(h, where))

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        """(B,) of targets (B, K): 1 where the text has the class, else 0."""
        if smoothing:
            raise ValueError(f"{self.path}: smoothing is of classes that exclude each other; these do not")
        said = self(h, where)
        if targets.shape != said.shape:
            raise ValueError(f"{self.path}: targets must be {tuple(said.shape)}; came {tuple(targets.shape)}")
        exact = torch.promote_types(said.dtype, torch.float32)
        return F.binary_cross_entropy_with_logits(said.to(exact), targets.to(exact), reduction="none").mean(1)
