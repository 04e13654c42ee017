"""Encoder only (Phuong & Hutter 2022, algorithm 9; BERT): tokens in, a vector for each out."""

from __future__ import annotations

from anyformer.architectures.tokens import OverTokens, TokenModel
from anyformer.core.roles import AnyLayer, Head
from anyformer.core.spec import Site, Size, spec


@spec
class Encoder(OverTokens):
    """Tokens in, a vector for each out (BERT); give its mixers the pattern `full`.

    head: None leaves the vectors as they are. size: the width of embeddings, positions and norm at the entrance, where
    it is not the stream's: a linear map follows (ELECTRA, ALBERT).
    """

    body: AnyLayer
    head: Head | None = None
    size: Size | None = None

    def make(self, at: Site) -> TokenModel:
        return TokenModel(self, at, body=self.body, head=self.head, size=self.size)
