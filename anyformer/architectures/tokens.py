"""Models over tokens: ids, or what enters in their place, to vectors, a body, a head.

At the entrance x = drop(norm(embedding + positions)), the norm and the dropout being none where nothing is said. What
is narrower than the stream is then widened, W x + b.
"""

from __future__ import annotations

from abc import ABC

from torch import Tensor, nn
from torch.nn import functional as F

from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer, Part
from anyformer.core.linear import Linear
from anyformer.core.model import Model
from anyformer.core.roles import Embedding, Norm, Position
from anyformer.core.spec import (
    EmbeddingSpec,
    Fraction,
    HeadSpec,
    LayerSpec,
    ModelSpec,
    NormSpec,
    PositionSpec,
    Ref,
    Site,
    Size,
    spec,
)
from anyformer.core.state import Past, Room
from anyformer.embeddings.tokens import Tokens
from anyformer.norms.nothing import NoNorm
from anyformer.positions.base import Nowhere, OnEmbeddings
from anyformer.positions.none import NoPosition


@spec
class OverTokens(ModelSpec, ABC):
    """What all of them have at the entrance.

    position: one that acts on embeddings; others stand in the mixers. norm, dropout: of the sum of both (BERT and
    BLOOM; Vaswani et al. 2017, section 5.4). context: tokens of the longest texts that it was made for, where that is
    known: a piece of advice, for nothing is computed from it.
    """

    embedding: Embedding = Tokens()
    position: Position = NoPosition()
    norm: Norm = NoNorm()
    dropout: Fraction = 0.0
    context: Size | None = None


class Entrance:
    """What enters, to vectors. Its parts are the model's own: `embedding`, `position` and `norm`, or with a prefix.

    `up` (C, E) is there where they are narrower than the stream.
    """

    up: Linear | None

    def __init__(
        self,
        model: Part,
        at: Site,
        embedding: EmbeddingSpec | Ref,
        position: PositionSpec | Ref,
        norm: NormSpec | Ref,
        dropout: float,
        prefix: str = "",
        size: int | None = None,
    ) -> None:
        """size: the width of these parts; None: the stream's."""
        width = size or at.width
        model.hold(at, f"{prefix}embedding", embedding, width=width)
        model.hold(at, f"{prefix}position", position, width=width)
        model.hold(at, f"{prefix}norm", norm, width=width)
        self.up = (
            None if size is None else Linear(at.at(f"{prefix}up"), "C", "E", {"C": at.width, "E": size}, bias=True)
        )
        model.register_module(f"{prefix}up", self.up)
        self.embedding: nn.Module = getattr(model, f"{prefix}embedding")
        self.position: OnEmbeddings | Nowhere = getattr(model, f"{prefix}position")
        self.norm: nn.Module = getattr(model, f"{prefix}norm")
        self.dropout = dropout
        if not isinstance(self.position, (OnEmbeddings, Nowhere)):
            raise ValueError(
                f"{prefix}position: acts {self.position.acts}; only positions that act on embeddings stand here; "
                "put it in the mixers"
            )

    def __call__(self, ids: Tensor, where: Where) -> Tensor:
        """ids (B, T), or what makes T vectors a row -> (B, T, C)."""
        x = self.embedding(ids)
        if isinstance(self.position, OnEmbeddings):
            x = self.position(x, where)
        x = F.dropout(self.norm(x), self.dropout, self.norm.training)
        return x if self.up is None else self.up(x)

    @property
    def longest(self) -> int | None:
        """The longest text that the positions can tell apart; None: no bound."""
        return self.position.longest if isinstance(self.position, OnEmbeddings) else None


class TokenModel(Model):
    """embedding, position, body, head: encoders and decoders alike; the body's patterns make the difference."""

    body: Layer

    def __init__(
        self,
        spec: OverTokens,
        at: Site,
        *,
        body: LayerSpec | Ref,
        head: HeadSpec | Ref | None,
        size: int | None = None,
    ) -> None:
        """size: the width of what enters; None: the stream's."""
        super().__init__(spec, at)
        self.enter = Entrance(self, at, spec.embedding, spec.position, spec.norm, spec.dropout, size=size)
        self.longest = self.enter.longest
        self.hold(at, "body", body)
        self.hold_head(at, head)

    def hidden(self, ids: Tensor, ctx: Context, past: Past) -> tuple[Tensor, Past]:
        return self.body(ctx.point(self.path, "embedding", self.enter(ids, ctx.where)), ctx, past)

    def init_body(self, room: Room) -> Past:
        return self.body.init_state(room)

    def rewind_body(self, past: Past, until: Tensor) -> Past:
        return self.body.rewind(past, until)
