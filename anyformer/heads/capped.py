"""Logits kept within bounds (Gemma 2, 2024): c tanh(l / c) of another head's logits l."""

from __future__ import annotations

from torch import Tensor

from anyformer.core.roles import Head
from anyformer.core.spec import HeadSpec, Positive, Site, spec
from anyformer.heads.base import TokenHead
from anyformer.heads.tied import Tied


@spec
class Capped(HeadSpec):
    """Another head's logits, none of them larger than a bound (Gemma 2, 2024).

    decoder: that head. cap: the bound.
    """

    decoder: Head = Tied()
    cap: Positive = 30.0

    def build(self, at: Site) -> CappedHead:
        return CappedHead(self, at)


class CappedHead(TokenHead):
    """decoder: the head whose logits are bounded."""

    decoder: TokenHead

    def __init__(self, spec: Capped, at: Site) -> None:
        super().__init__(at)
        self.cap = spec.cap
        self.hold(at, "decoder", spec.decoder)
        if not isinstance(self.decoder, TokenHead):
            raise ValueError(f"{at.path}.decoder: it answers for every token, as `tied` and `language` do")
        self.size = self.decoder.size

    def logits(self, h: Tensor) -> Tensor:
        return self.cap * (self.decoder.logits(h) / self.cap).tanh()
