"""Decoder only (Phuong & Hutter 2022, algorithm 10; GPT): tokens in, the next token's logits out."""

from __future__ import annotations

from anyformer.architectures.tokens import OverTokens, TokenModel
from anyformer.core.roles import AnyLayer, Head
from anyformer.core.spec import Site, spec
from anyformer.heads.tied import Tied


@spec
class Decoder(OverTokens):
    """Tokens in, logits of the next token out (GPT)."""

    body: AnyLayer
    head: Head | None = Tied()

    def make(self, at: Site) -> TokenModel:
        return TokenModel(self, at, body=self.body, head=self.head)
