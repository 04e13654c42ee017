"""The embedding read backwards (Press & Wolf 2017): logits = W_e h."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.spec import HeadSpec, Positive, Ref, Site, spec
from anyformer.embeddings.tokens import TokenEmbedding
from anyformer.heads.base import Head


@spec
class Tied(HeadSpec):
    """Logits over the vocabulary from the embedding's own weights (Press & Wolf 2017).

    table: the embedding. scale: of the stream before the product (T5: 1/sqrt of the width).
    """

    table: Ref = Ref("embedding")
    scale: Positive = 1.0

    def build(self, at: Site) -> TiedHead:
        return TiedHead(self, at)


class TiedHead(Head):
    """No weights of its own."""

    table: TokenEmbedding

    def __init__(self, spec: Tied, at: Site) -> None:
        super().__init__(at)
        self.scale = spec.scale
        self.hold(at, "table", spec.table)

    @property
    def size(self) -> int:
        return self.table.weight.shape[0]

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h * self.scale, self.table.weight)
