"""Cross attention (Vaswani et al. 2017, section 3.2.3): queries from the stream, keys and values from a source.

The source is projected once, when the state is made, or when more of it comes (a source that grows).
"""

from __future__ import annotations

from torch import Tensor

from anyformer.attention.heads import Headed, hold_position
from anyformer.core.context import Context, Source, Where
from anyformer.core.roles import Position
from anyformer.core.spec import Fraction, LayerSpec, Positive, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.kernels.attention import Region
from anyformer.patterns.base import AnyPattern
from anyformer.patterns.full import Full
from anyformer.positions.base import Nowhere, OnScores
from anyformer.positions.none import NoPosition
from anyformer.stores.grow import Grow

EVERYTHING = (0, float("inf"))


@spec
class Cross(LayerSpec):
    """Attention to a source: an encoder's vectors, images, neighbours (Vaswani et al. 2017).

    source: its name. source_width: of its vectors; None: the stream's. pattern: compares the two clocks as any other.
    """

    heads: Size
    kv_heads: Size | None = None
    head_size: Size | None = None
    source: str = "source"
    source_width: Size | None = None
    pattern: AnyPattern = Full()
    position: Position = NoPosition()
    bias: bool = False
    scale: Positive | None = None
    dropout: Fraction = 0.0

    def build(self, at: Site) -> CrossAttention:
        return CrossAttention(self, at)


class CrossAttention(Headed):
    """Its past is the source's keys and values; forgetting tokens of the stream leaves them as they are."""

    def __init__(self, spec: Cross, at: Site) -> None:
        super().__init__(at, spec.heads, spec.kv_heads, spec.head_size, spec.bias, spec.source_width)
        if spec.source not in at.sources:
            raise ValueError(
                f"{at.path}.source: no source {spec.source!r} here; the model declares {sorted(at.sources)}"
            )
        self.source, self.pattern, self.dropout = spec.source, spec.pattern, spec.dropout
        self.scale = spec.scale or self.head_size**-0.5
        hold_position(self, at, spec.position, (Nowhere, OnScores))

    def init_state(self, room: Room) -> Past:
        shape = (room.batch, 0, self.groups, self.head_size)
        none = room.like.coords.new_zeros(shape, dtype=room.dtype)
        like = Where(room.like.time, room.like.coords, {})
        store = Grow((none, none), like)
        return self.append(room.sources[self.source], store) if self.source in room.sources else store

    def append(self, source: Source, store: Grow) -> Grow:
        """The store with the source's keys and values appended."""
        k, v = self.cut(self.k(source.vectors), self.groups), self.cut(self.v(source.vectors), self.groups)
        where = Where(source.where.time, source.where.coords, {})
        return store.append((k, v), where, EVERYTHING)[2]

    def rewind(self, past: Grow, until: Tensor) -> Grow:
        return past

    def forward(self, x: Tensor, ctx: Context, state: Grow | None = None) -> tuple[Tensor, Past]:
        q = self.cut(self.q(x), self.heads)
        new = ctx.sources.get(self.source)
        if state is None:
            if new is None:
                raise ValueError(f"{self.path}: no source {self.source!r} was given; given: {sorted(ctx.sources)}")
            k, v = self.cut(self.k(new.vectors), self.groups), self.cut(self.v(new.vectors), self.groups)
            seen = new.where
        else:
            state = state if new is None else self.append(new, state)
            (k, v), seen = state.values, state.where
        scores = self.position(ctx.where, seen) if isinstance(self.position, OnScores) else None
        region = Region(q, k, v, ctx.where, seen, self.pattern, self.scale, scores)
        return self.read(region, ctx, self.dropout), state
