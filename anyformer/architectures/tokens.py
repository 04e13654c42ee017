"""Models over tokens: ids to vectors (embedding, then positions that act on embeddings), a body, a head."""

from __future__ import annotations

from torch import Tensor

from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer, Part
from anyformer.core.model import Model
from anyformer.core.spec import EmbeddingSpec, HeadSpec, LayerSpec, ModelSpec, PositionSpec, Ref, Site
from anyformer.core.state import Past, Room
from anyformer.embeddings.tokens import TokenEmbedding
from anyformer.positions.base import Nowhere, OnEmbeddings


class Entrance:
    """Token ids to vectors. Its parts are the model's own: `embedding` and `position`, or both with a prefix."""

    def __init__(
        self, model: Part, at: Site, embedding: EmbeddingSpec | Ref, position: PositionSpec | Ref, prefix: str = ""
    ) -> None:
        model.hold(at, f"{prefix}embedding", embedding)
        model.hold(at, f"{prefix}position", position)
        self.embedding: TokenEmbedding = getattr(model, f"{prefix}embedding")
        self.position: OnEmbeddings | Nowhere = getattr(model, f"{prefix}position")
        if not isinstance(self.position, (OnEmbeddings, Nowhere)):
            raise ValueError(
                f"{prefix}position: acts {self.position.acts}; only positions that act on embeddings stand here; "
                "put it in the mixers"
            )

    def __call__(self, ids: Tensor, where: Where) -> Tensor:
        """(B, T) -> (B, T, C)."""
        x = self.embedding(ids)
        return self.position(x, where) if isinstance(self.position, OnEmbeddings) else x

    @property
    def longest(self) -> int | None:
        """The longest text that the positions can tell apart; None: no bound."""
        return self.position.longest if isinstance(self.position, OnEmbeddings) else None


class TokenModel(Model):
    """embedding, position, body, head: encoders and decoders alike; the body's patterns make the difference."""

    body: Layer

    def __init__(
        self,
        spec: ModelSpec,
        at: Site,
        *,
        embedding: EmbeddingSpec | Ref,
        position: PositionSpec | Ref,
        body: LayerSpec | Ref,
        head: HeadSpec | Ref | None,
    ) -> None:
        super().__init__(spec, at)
        self.enter = Entrance(self, at, embedding, position)
        self.longest = self.enter.longest
        self.hold(at, "body", body)
        self.hold_head(at, head)

    def hidden(self, ids: Tensor, ctx: Context, past: Past) -> tuple[Tensor, Past]:
        return self.body(ctx.point("", "embedding", self.enter(ids, ctx.where)), ctx, past)

    def init_body(self, room: Room) -> Past:
        return self.body.init_state(room)

    def rewind_body(self, past: Past, until: Tensor) -> Past:
        return self.body.rewind(past, until)
