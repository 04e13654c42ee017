"""A vector for a text, to be compared with others (Sentence-BERT; Reimers & Gurevych 2019): e = W p, e / |e|."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.linear import Linear
from anyformer.core.spec import HeadSpec, Site, Size, spec
from anyformer.heads.pooling import WHOLE, Pool, Pooler


@spec
class Sentence(HeadSpec):
    """A vector for each text (Reimers & Gurevych 2019); what it is worth, only other texts tell: it has no loss.

    hidden: BERT's tanh(W h + b) of what was pooled. size: of the vector; None: the stream's width, without a
    projection. bias: of the projection. unit: vectors of length 1.
    """

    EXEMPT: ClassVar = WHOLE

    pool: Pool = "mean"
    hidden: bool = False
    size: Size | None = None
    bias: bool = False
    unit: bool = True

    @classmethod
    def examples(cls) -> tuple[Sentence, ...]:
        return cls(size=5), cls(pool="last", hidden=True, size=7, bias=True, unit=False)

    def build(self, at: Site) -> SentenceHead:
        return SentenceHead(self, at)


class SentenceHead(Head):
    """out: (E, C), or None."""

    pools = True
    out: Linear | None

    def __init__(self, spec: Sentence, at: Site) -> None:
        super().__init__(at)
        self.unit = spec.unit
        self.pooler = Pooler(at.at("pooler"), spec.pool, spec.hidden, dropout=0.0)
        sizes = {"E": spec.size or at.width, "C": at.width}
        self.out = None if spec.size is None else Linear(at.at("out"), "E", "C", sizes, spec.bias)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> (B, E)."""
        x = self.raw(h, where)
        return F.normalize(x, dim=-1) if self.unit else x

    def raw(self, h: Tensor, where: Where) -> Tensor:
        """The same, of whatever length it comes."""
        x = self.pooler(h, where)
        return x if self.out is None else self.out(x)

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        raise ValueError(f"{self.path}: a vector has no loss by itself; an objective compares it with those of others")
