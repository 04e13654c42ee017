"""A free unembedding (Phuong & Hutter 2022, algorithm 7): logits = c W_u h."""

from __future__ import annotations

from torch import Tensor

from anyformer.core.linear import Linear
from anyformer.core.spec import HeadSpec, Positive, Site, spec
from anyformer.heads.base import TokenHead


@spec
class Language(HeadSpec):
    """Logits over the vocabulary from weights of their own (Phuong & Hutter 2022).

    scale: of the stream before the product (Granite).
    """

    scale: Positive = 1.0
    bias: bool = False

    def build(self, at: Site) -> LanguageHead:
        return LanguageHead(self, at)


class LanguageHead(TokenHead):
    """out: (V, C)."""

    def __init__(self, spec: Language, at: Site) -> None:
        super().__init__(at)
        if at.vocabulary is None:
            raise ValueError(f"{at.path}: the model's vocabulary is not set; training sets it from the tokenizer")
        self.size, self.scale = at.vocabulary, spec.scale
        self.out = Linear(at.at("out"), "V", "C", {"V": self.size, "C": at.width}, spec.bias)

    def logits(self, h: Tensor) -> Tensor:
        return self.out(h * self.scale)
