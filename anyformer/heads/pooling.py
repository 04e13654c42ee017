"""One vector of a whole text: its first or last token's, the mean, or the largest number of each channel."""

from __future__ import annotations

from abc import ABC
from math import inf
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from anyformer.core.context import BEYOND, Where
from anyformer.core.head import Head
from anyformer.core.layer import Part
from anyformer.core.linear import Linear
from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, HeadSpec, NormSpec, Ref, Site, spec
from anyformer.feedforward.activations import FUNCTIONS, Activation
from anyformer.norms.nothing import NoNorm

Pool = Literal["first", "mean", "last", "max"]

WHOLE = {  # what heads that pool cannot keep
    "state": "one answer is read off the whole text, which cannot come in pieces",
    "packed": "one answer is read off the whole row, which cannot hold several texts",
}


def pool(h: Tensor, where: Where, how: Pool) -> Tensor:
    """(B, T, C) -> (B, C), of real tokens alone; 0 for a row that has none."""
    real = where.real[..., None]
    match how:
        case "mean":
            return h.masked_fill(~real, 0).sum(1) / real.sum(1).clamp(min=1)
        case "max":
            found = h.masked_fill(~real, -inf).amax(1)
        case "first":
            found = _at(h, where.time.masked_fill(~where.real, BEYOND).argmin(1))
        case "last":
            found = _at(h, where.time.argmax(1))
    return found.masked_fill(~real.any(1), 0)


def at_time(h: Tensor, where: Where, time: int) -> Tensor:
    """(B, C), each row's token at that time; 0 for a row that has none."""
    here = where.time == time
    return _at(h, here.long().argmax(1)).masked_fill(~here.any(1, keepdim=True), 0)


def _at(h: Tensor, place: Tensor) -> Tensor:
    """h (B, T, C) at each row's own place (B,)."""
    return h.gather(1, place[:, None, None].expand(-1, 1, h.shape[-1]))[:, 0]


def refuse_packed(at: Site) -> None:
    """Refuse rows of several texts, for a head that takes a row as one."""
    if "document" in at.labels:
        raise ValueError(
            f"{at.path}: one answer is read off each row, but the model's label 'document' packs several texts into "
            "one; take 'document' out of the model's labels"
        )


class Pooler(Part):
    """dense: (C, C), BERT's a(W h + b) of the pooled vector (Devlin et al. 2019), or None; then norm."""

    dense: Linear | None
    norm: nn.Module

    def __init__(
        self,
        at: Site,
        how: Pool,
        hidden: bool,
        dropout: float,
        activation: Activation = "tanh",
        bias: bool = True,
        norm: NormSpec | Ref | None = None,
    ) -> None:
        """bias: of dense. norm: None: there is none."""
        super().__init__(at)
        refuse_packed(at)
        self.how: Pool = how
        self.activation, self.dropout = FUNCTIONS[activation], dropout
        self.dense = Linear(at.at("dense"), "C", "C", {"C": at.width}, bias) if hidden else None
        self.hold(at, "norm", norm or NoNorm())

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> (B, C)."""
        x = pool(h, where, self.how)
        if self.dense is not None:
            x = self.activation(self.dense(x))
        return F.dropout(self.norm(x), self.dropout, self.training)


@spec
class PooledSpec(HeadSpec, ABC):
    """What is said of a whole text, read off one vector of it.

    hidden: BERT's a(W p + b) before it. activation: a; RoBERTa has tanh, ELECTRA gelu, DistilBERT relu. dropout: of
    what it is read off. hidden_bias: b. norm: of what is before it (ModernBERT).
    """

    EXEMPT: ClassVar = WHOLE

    pool: Pool = "first"
    hidden: bool = False
    activation: Activation = "tanh"
    dropout: Fraction = 0.0
    bias: bool = True
    hidden_bias: bool = True
    norm: Norm = NoNorm()


class PooledHead(Head, ABC):
    """pooler, then out: (K, C)."""

    pools = True

    def __init__(self, spec: PooledSpec, at: Site, size: int) -> None:
        """size: K."""
        super().__init__(at)
        hidden = spec.activation, spec.hidden_bias, spec.norm
        self.pooler = Pooler(at.at("pooler"), spec.pool, spec.hidden, spec.dropout, *hidden)
        self.out = Linear(at.at("out"), "K", "C", {"K": size, "C": at.width}, spec.bias)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> (B, K)."""
        return self.out(self.pooler(h, where))
