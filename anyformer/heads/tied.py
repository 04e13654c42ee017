"""The embedding read backwards (Press & Wolf 2017): logits = W_e h, and a bias where one was trained."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import zeros
from anyformer.core.modality import Modality
from anyformer.core.spec import HeadSpec, Positive, Ref, Site, spec
from anyformer.embeddings.tokens import TokenEmbedding
from anyformer.heads.base import TokenHead


@spec
class Tied(HeadSpec):
    """Logits over the vocabulary from the embedding's own weights (Press & Wolf 2017).

    table: the embedding. scale: of the stream before the product (T5: 1/sqrt of the width).
    """

    table: Ref = Ref("embedding")
    scale: Positive = 1.0
    bias: bool = False

    def build(self, at: Site) -> TiedHead:
        return TiedHead(self, at)


class TiedHead(TokenHead):
    """bias: (V,) or None."""

    table: TokenEmbedding
    bias: Tensor | None

    def __init__(self, spec: Tied, at: Site) -> None:
        super().__init__(at)
        self.scale = spec.scale
        self.hold(at, "table", spec.table)
        if isinstance(self.table, Modality):
            raise ValueError(
                f"{at.path}.table: {spec.table.path!r} takes no token ids, so it has no vector per token to read "
                "backwards; use another head"
            )
        self.size, width = self.table.weight.shape
        if width != at.width:
            raise ValueError(f"{at.path}.table: its vectors have {width} channels, what is read here has {at.width}")
        if spec.bias:
            self.param("bias", ("V",), {"V": self.size}, zeros)
        else:
            self.register_parameter("bias", None)

    def logits(self, h: Tensor) -> Tensor:
        return F.linear(h * self.scale, self.table.weight, self.bias)
