"""Encoder only (Phuong & Hutter 2022, algorithm 9; BERT): tokens in, a vector for each out."""

from __future__ import annotations

from anyformer.architectures.tokens import TokenModel
from anyformer.core.roles import AnyLayer, Embedding, Head, Position
from anyformer.core.spec import ModelSpec, Site, spec
from anyformer.embeddings.tokens import Tokens
from anyformer.positions.none import NoPosition


@spec
class Encoder(ModelSpec):
    """Tokens in, a vector for each out (BERT); give its mixers the pattern `full`.

    head: None leaves the vectors as they are.
    """

    body: AnyLayer
    embedding: Embedding = Tokens()
    position: Position = NoPosition()
    head: Head | None = None

    def make(self, at: Site) -> TokenModel:
        return TokenModel(self, at, embedding=self.embedding, position=self.position, body=self.body, head=self.head)
