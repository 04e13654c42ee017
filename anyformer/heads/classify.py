"""Classes of whole texts (Devlin et al. 2019, section 3.2): logits = W p + b of a pooled vector p."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.linear import Linear
from anyformer.core.roles import Norm
from anyformer.core.spec import Fraction, HeadSpec, Site, spec
from anyformer.feedforward.activations import Activation
from anyformer.heads.base import Labels, count, nats
from anyformer.heads.pooling import WHOLE, Pool, Pooler
from anyformer.norms.nothing import NoNorm


@spec
class Classify(HeadSpec):
    """A class for each text (Devlin et al. 2019).

    labels: the names of the classes; None lets training set them from the data. hidden: BERT's a(W p + b) before
    the logits. activation: a; RoBERTa has tanh, ELECTRA gelu, DistilBERT relu. dropout: of what the logits are made
    from. hidden_bias: b. norm: of what is before the logits (ModernBERT).
    """

    EXEMPT: ClassVar = WHOLE

    labels: Labels | None = None
    pool: Pool = "first"
    hidden: bool = False
    activation: Activation = "tanh"
    dropout: Fraction = 0.0
    bias: bool = True
    hidden_bias: bool = True
    norm: Norm = NoNorm()

    @classmethod
    def examples(cls) -> tuple[Classify, ...]:
        labels = ("no", "yes", "perhaps")
        return cls(labels=labels, hidden=True), cls(labels=labels, pool="max")

    def build(self, at: Site) -> ClassifyHead:
        return ClassifyHead(self, at)


class ClassifyHead(Head):
    """pooler, then out: (K, C)."""

    pools = True

    def __init__(self, spec: Classify, at: Site) -> None:
        super().__init__(at)
        hidden = spec.activation, spec.hidden_bias, spec.norm
        self.pooler = Pooler(at.at("pooler"), spec.pool, spec.hidden, spec.dropout, *hidden)
        self.out = Linear(at.at("out"), "K", "C", {"K": count(spec.labels, at), "C": at.width}, spec.bias)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> logits (B, K)."""
        return self.out(self.pooler(h, where))

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        return nats(self(h, where), targets, smoothing)
