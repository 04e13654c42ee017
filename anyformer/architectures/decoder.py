"""Decoder only (Phuong & Hutter 2022, algorithm 10; GPT): tokens in, the next token's logits out."""

from __future__ import annotations

from anyformer.architectures.tokens import TokenModel
from anyformer.core.roles import AnyLayer, Embedding, Head, Position
from anyformer.core.spec import ModelSpec, Site, spec
from anyformer.embeddings.tokens import Tokens
from anyformer.heads.tied import Tied
from anyformer.positions.none import NoPosition


@spec
class Decoder(ModelSpec):
    """Tokens in, logits of the next token out (GPT).

    position: one that acts on embeddings; others stand in the mixers.
    """

    body: AnyLayer
    embedding: Embedding = Tokens()
    position: Position = NoPosition()
    head: Head = Tied()

    def make(self, at: Site) -> TokenModel:
        return TokenModel(self, at, embedding=self.embedding, position=self.position, body=self.body, head=self.head)
