"""Classes of single tokens, as named entities are (Devlin et al. 2019, section 5.3): logits_t = W h_t + b."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.linear import Linear
from anyformer.core.spec import Fraction, HeadSpec, Site, spec
from anyformer.heads.base import Labels, TokenHead, count


@spec
class Tag(HeadSpec):
    """A class for each token (Devlin et al. 2019).

    labels: the names of the classes; None lets training set them from the data.
    """

    labels: Labels | None = None
    dropout: Fraction = 0.0
    bias: bool = True

    @classmethod
    def examples(cls) -> tuple[Tag, ...]:
        return (cls(labels=("name", "place", "other")),)

    def build(self, at: Site) -> TagHead:
        return TagHead(self, at)


class TagHead(TokenHead):
    """out: (K, C)."""

    def __init__(self, spec: Tag, at: Site) -> None:
        super().__init__(at)
        self.size, self.dropout = count(spec.labels, at), spec.dropout
        self.out = Linear(at.at("out"), "K", "C", {"K": self.size, "C": at.width}, spec.bias)

    def logits(self, h: Tensor) -> Tensor:
        return self.out(F.dropout(h, self.dropout, self.training))
