"""BERT's two heads side by side (Devlin et al. 2019, section 3.1): masked tokens, and next sentences."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.roles import Head as AnyHead
from anyformer.core.spec import HeadSpec, Site, spec
from anyformer.heads.base import TokenHead
from anyformer.heads.classify import Classify
from anyformer.heads.masked import Masked
from anyformer.heads.pooling import WHOLE


@spec
class Pretraining(HeadSpec):
    """Masked tokens and next sentences (Devlin et al. 2019): `tokens` answers, `pair` is there to be asked."""

    EXEMPT: ClassVar = {"packed": WHOLE["packed"]}

    tokens: AnyHead = Masked()
    pair: AnyHead = Classify(labels=("next", "other"), hidden=True)

    def build(self, at: Site) -> PretrainingHead:
        return PretrainingHead(self, at)


class PretrainingHead(Head):
    """`model.read(ids, lambda h, where: model.head.pair.loss(h, targets, where))` is the loss of the pairs."""

    tokens: TokenHead
    pair: Head

    def __init__(self, spec: Pretraining, at: Site) -> None:
        super().__init__(at)
        self.hold(at, "tokens", spec.tokens)
        self.hold(at, "pair", spec.pair)
        if not isinstance(self.tokens, TokenHead):
            raise ValueError(f"{at.path}.tokens: it answers for every token, as `masked` does")

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> logits of the tokens (B, T, V)."""
        return self.tokens(h, where)

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        return self.tokens.loss(h, targets, where, smoothing)
