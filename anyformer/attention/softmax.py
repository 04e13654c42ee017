"""Softmax attention (Vaswani et al. 2017, section 3.2).

out_i = sum_j softmax_j(q_i . k_j / sqrt D) v_j, over the tokens j that i sees.

Multi-head; multi-query and grouped (Shazeer 2019, Ainslie et al. 2023) where there are fewer key-value heads. The
pattern makes it causal, bidirectional, windowed …; the position scheme turns queries and keys or adds to the scores.
Queries and keys may be normalised first (Henry et al. 2020; Qwen3, OLMo 2), scores be capped (Gemma 2). A sink is a
learned score in the denominator, so that a head may take less than a whole: sum_j exp(s_ij) + exp(sink).
"""

from __future__ import annotations

from torch import Tensor

from anyformer.attention.heads import Headed, Over, hold_norms, hold_position, refuse_ahead
from anyformer.core.context import Context, Where
from anyformer.core.fills import constant
from anyformer.core.roles import Norm, Position
from anyformer.core.spec import Fraction, LayerSpec, Positive, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.kernels.attention import Region
from anyformer.patterns.base import AnyPattern, parse
from anyformer.patterns.causal import Causal
from anyformer.positions.base import Nowhere, OnEdges, OnPairs, OnScores, refuse_cuts
from anyformer.positions.none import NoPosition
from anyformer.stores.base import Reach, Store
from anyformer.stores.room import make_store


@spec
class Softmax(LayerSpec):
    """Softmax attention over the tokens that a pattern lets each token see (Vaswani et al. 2017).

    kv_heads: key-value heads, 1 for multi-query; None: as many as heads. head_size: None: width / heads.
    bias: of q, k and v; out_bias: of o; k_bias: of k alone, which Whisper has not; None: as bias.
    scale: of the scores; None: 1/sqrt(head_size).
    qk_norm: of queries and keys, before positions turn them; over one head at a time, with weights that are all heads'
    (head: Qwen3) or its own (each_head: StableLM 2), or over all_heads at once (OLMo 2).
    softcap: scaled scores s become softcap tanh(s / softcap) (Gemma 2), before a position scheme's are added.
    sink: where a head's learned score of nothing starts (gpt-oss; with 0, Miller's softmax1); None: there is none.
    dropout: of the weights.
    """

    heads: Size
    kv_heads: Size | None = None
    head_size: Size | None = None
    pattern: AnyPattern = Causal()
    position: Position = NoPosition()
    bias: bool = False
    out_bias: bool | None = None
    k_bias: bool | None = None
    scale: Positive | None = None
    qk_norm: Norm | None = None
    qk_norm_over: Over = "head"
    softcap: Positive | None = None
    sink: float | None = None
    dropout: Fraction = 0.0

    @classmethod
    def examples(cls) -> tuple[Softmax, ...]:
        from anyformer.norms.layer import LayerNorm
        from anyformer.norms.rms import RMSNorm
        from anyformer.positions.rotary import Rotary
        from anyformer.positions.shaw import Shaw

        return (
            cls(heads=4, kv_heads=2),
            cls(
                heads=4,
                kv_heads=2,
                position=Rotary(),
                bias=True,
                out_bias=False,
                k_bias=False,
                qk_norm=RMSNorm(),
                softcap=3.0,
            ),
            cls(
                heads=3,
                kv_heads=1,
                head_size=5,
                pattern=parse("causal & (sinks(2) | window(5))"),
                position=Shaw(furthest=3),
                out_bias=True,
                qk_norm=LayerNorm(),
                qk_norm_over="all_heads",
            ),
            cls(heads=4, kv_heads=2, qk_norm=LayerNorm(bias=False), qk_norm_over="each_head", sink=0.5),
        )

    def build(self, at: Site) -> SoftmaxAttention:
        return SoftmaxAttention(self, at)


class SoftmaxAttention(Headed):
    """Its past is a store of keys and values. sink: (H,) or None."""

    sink: Tensor | None

    def __init__(self, spec: Softmax, at: Site) -> None:
        sizes = spec.heads, spec.kv_heads, spec.head_size
        super().__init__(at, *sizes, spec.bias, out_bias=spec.out_bias, k_bias=spec.k_bias)
        spec.pattern.check_labels(at.labels, f"{at.path}.pattern")
        self.pattern, self.dropout, self.whole = spec.pattern, spec.dropout, at.whole
        self.reaches = spec.pattern.reach(False), spec.pattern.reach(True)
        self.scale, self.softcap = spec.scale or self.head_size**-0.5, spec.softcap
        if spec.sink is None:
            self.register_parameter("sink", None)
        else:
            self.param("sink", ("H",), {"H": self.heads}, constant(spec.sink))
        hold_norms(self, at, spec.qk_norm, spec.qk_norm_over)
        hold_position(self, at, spec.position, (Nowhere, OnPairs, OnScores, OnEdges))

    def init_state(self, room: Room) -> Past:
        refuse_ahead(self, self.pattern, self.whole)
        refuse_cuts(self.position)
        shapes = [(self.groups, self.head_size)] * 2
        return make_store(room, shapes, self.reaches[room.restarts])

    def rewind(self, past: Store, until: Tensor) -> Store:
        return past.rewind(until)

    def forward(self, x: Tensor, ctx: Context, state: Store | None = None) -> tuple[Tensor, Past]:
        q, k, v = self.split(x)
        q, k = self.normed(self.q_norm, q), self.normed(self.k_norm, k)
        where = seen = ctx.where
        # A key is kept as it is made, so that other extensions may turn it anew at each call. Only where it is written
        # in place is it turned once, when it comes: most of a decoding step would otherwise be spent on old keys.
        once = state is None or state.inplace
        if once:
            k = self.turned(k, where)
        if state is not None:
            (k, v), seen, state = state.append((k, v), where, self.reach(where))
        if not once:
            k = self.turned(k, seen)
        q = self.turned(q, where)
        scores, adds = self.terms(q, self.scale, where, seen)
        straight = ctx.straight and state is None
        terms = scores, straight, self.softcap, adds, self.sink
        region = Region(q, k, v, where, seen, self.pattern, self.scale, *terms)
        return self.read(region, ctx, self.dropout), state

    def turned(self, x: Tensor, where: Where) -> Tensor:
        """Queries or keys (B, T, H or G, D) as their position scheme turns them."""
        return self.position(x, where) if isinstance(self.position, OnPairs) else x

    def reach(self, where: Where) -> Reach:
        """What the pattern needs to be kept, for tokens that have these labels."""
        return self.reaches["start" in where.labels]
