"""Cross attention (Vaswani et al. 2017, section 3.2.3): queries from the stream, keys and values from a source.

The source is projected once, when the state is made, or when more of it comes (a source that grows).
"""

from __future__ import annotations

from torch import Tensor

from anyformer.attention.heads import Headed, Over, hold_norms, hold_position
from anyformer.core.context import Context, Source, Where
from anyformer.core.roles import Norm, Position
from anyformer.core.spec import Fraction, LayerSpec, Positive, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.kernels.attention import Region
from anyformer.patterns.base import AnyPattern
from anyformer.patterns.full import Full
from anyformer.positions.base import Nowhere, OnEdges, OnScores
from anyformer.positions.none import NoPosition
from anyformer.stores.grow import Grow

EVERYTHING = (0, float("inf"))


@spec
class Cross(LayerSpec):
    """Attention to a source: an encoder's vectors, images, neighbours (Vaswani et al. 2017).

    source: its name. source_width: of its vectors; None: the stream's. pattern: compares the two clocks as any other.
    The other fields are softmax's.
    """

    heads: Size
    kv_heads: Size | None = None
    head_size: Size | None = None
    source: str = "source"
    source_width: Size | None = None
    pattern: AnyPattern = Full()
    position: Position = NoPosition()
    bias: bool = False
    out_bias: bool | None = None
    k_bias: bool | None = None
    scale: Positive | None = None
    qk_norm: Norm | None = None
    qk_norm_over: Over = "head"
    softcap: Positive | None = None
    dropout: Fraction = 0.0

    @classmethod
    def examples(cls) -> tuple[Cross, ...]:
        from anyformer.norms.rms import RMSNorm
        from anyformer.positions.shaw import Shaw

        return (
            cls(heads=4, kv_heads=2),
            cls(heads=3, kv_heads=1, head_size=5, position=Shaw(furthest=2), bias=True, qk_norm=RMSNorm(), softcap=3.0),
        )

    def build(self, at: Site) -> CrossAttention:
        return CrossAttention(self, at)


class CrossAttention(Headed):
    """Its past is the source's keys and values; forgetting tokens of the stream leaves them as they are."""

    def __init__(self, spec: Cross, at: Site) -> None:
        sizes = spec.heads, spec.kv_heads, spec.head_size
        super().__init__(at, *sizes, spec.bias, spec.source_width, spec.out_bias, spec.k_bias)
        if spec.source not in at.sources:
            raise ValueError(
                f"{at.path}.source: no source {spec.source!r} here; the model declares {sorted(at.sources)}"
            )
        self.source, self.pattern, self.dropout = spec.source, spec.pattern, spec.dropout
        self.scale, self.softcap = spec.scale or self.head_size**-0.5, spec.softcap
        hold_norms(self, at, spec.qk_norm, spec.qk_norm_over)
        hold_position(self, at, spec.position, (Nowhere, OnScores, OnEdges))

    def init_state(self, room: Room) -> Past:
        shape = (room.batch, 0, self.groups, self.head_size)
        none = room.like.coords.new_zeros(shape, dtype=room.dtype)
        like = Where(room.like.time, room.like.coords, {})
        store = Grow((none, none), like)
        return self.append(room.sources[self.source], store) if self.source in room.sources else store

    def append(self, source: Source, store: Grow) -> Grow:
        """The store with the source's keys and values appended."""
        where = Where(source.where.time, source.where.coords, {})
        return store.append(self.keys(source), where, EVERYTHING)[2]

    def keys(self, source: Source) -> tuple[Tensor, Tensor]:
        """k and v (B, S, G, D)."""
        k, v = self.cut(self.k(source.vectors), self.groups), self.cut(self.v(source.vectors), self.groups)
        return self.normed(self.k_norm, k), v

    def rewind(self, past: Grow, until: Tensor) -> Grow:
        return past

    def forward(self, x: Tensor, ctx: Context, state: Grow | None = None) -> tuple[Tensor, Past]:
        q = self.normed(self.q_norm, self.cut(self.q(x), self.heads))
        new = ctx.sources.get(self.source)
        if state is None:
            if new is None:
                raise ValueError(f"{self.path}: no source {self.source!r} was given; given: {sorted(ctx.sources)}")
            (k, v), seen = self.keys(new), new.where
        else:
            state = state if new is None else self.append(new, state)
            (k, v), seen = state.values, state.where
        scores, adds = self.terms(q, self.scale, ctx.where, seen)
        region = Region(q, k, v, ctx.where, seen, self.pattern, self.scale, scores, softcap=self.softcap, adds=adds)
        return self.read(region, ctx, self.dropout), state
