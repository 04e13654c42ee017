"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, section 2.1): of a token only one short vector is kept.

[c_j ; r_j] = W_down x_j, then c_j = norm(c_j);  k_j = [W_k c_j ; turned(r_j)],  v_j = W_v c_j
q_i = [a_i ; turned(b_i)] = W_q x_i, or W_q norm(W_qdown x_i);  out_i = sum_j softmax_j(scale q_i . k_j) v_j

W_k, W_v and W_q are each head's own; c_j, of size R, and r_j, of size E, are one for all heads, and all that is kept.
Positions turn r_j alone, so that a_i . (W_k c_j) = (W_kᵀ a_i) . c_j: a few tokens read what is kept as it is, many make
keys and values of it first.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from anyformer.attention.heads import check_position, refuse_ahead, taken
from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer
from anyformer.core.linear import Linear
from anyformer.core.roles import Norm, Position
from anyformer.core.spec import Fraction, LayerSpec, Positive, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.kernels.attention import Region, plain
from anyformer.norms.rms import RMSNorm
from anyformer.patterns.base import AnyPattern, parse
from anyformer.patterns.causal import Causal
from anyformer.positions.base import Nowhere, OnPairs, OnScores, Scheme, refuse_cuts
from anyformer.positions.rotary import Rotary
from anyformer.stores.base import Reach, Store
from anyformer.stores.room import make_store


@spec
class Latent(LayerSpec):
    """Softmax attention that keeps one short vector a token (DeepSeek-V2 2024).

    head_size: of a head's own part of queries and keys; None: width / heads. shared_size: of the part that positions
    turn, whose key all heads share; None: head_size / 2. value_size: None: head_size. kv_rank: of what is kept beside
    that key; None: 4 head_size. q_rank: of the queries' way down; None: they come straight from the stream.
    norm: after both ways down. bias: of q_down, kv_down and o. scale: of the scores; None: 1/sqrt(head_size +
    shared_size). dropout: of the weights.
    """

    heads: Size
    head_size: Size | None = None
    shared_size: Size | None = None
    value_size: Size | None = None
    kv_rank: Size | None = None
    q_rank: Size | None = None
    norm: Norm = RMSNorm()
    pattern: AnyPattern = Causal()
    position: Position = Rotary(pairs="neighbours")
    bias: bool = False
    scale: Positive | None = None
    dropout: Fraction = 0.0

    @classmethod
    def examples(cls) -> tuple[Latent, ...]:
        from anyformer.positions.alibi import ALiBi

        window = parse("causal & (sinks(2) | window(5))")
        return (
            cls(heads=4, shared_size=4, kv_rank=7),
            cls(heads=3, head_size=5, shared_size=6, value_size=3, kv_rank=9, q_rank=11, pattern=window, bias=True),
            cls(heads=3, head_size=5, shared_size=1, kv_rank=30, position=ALiBi(), scale=0.7),
        )

    def build(self, at: Site) -> LatentAttention:
        return LatentAttention(self, at)


class LatentAttention(Layer):
    """Its past is a store of what each token keeps, as one head: c (1, R) and the shared key (1, E).

    q (H D+E, C), or q_down (Q, C), q_norm (Q,) and q_up (H D+E, Q); kv_down (R+E, C), kv_norm (R,), kv_up (H D+V, R);
    o (C, H V). Of a head's rows in q, q_up and kv_up the D come first.
    """

    q: Linear | None
    q_norm: nn.Module
    kv_norm: nn.Module
    position: Scheme

    def __init__(self, spec: Latent, at: Site) -> None:
        super().__init__(at)
        if spec.head_size is None and at.width % spec.heads:
            raise ValueError(
                f"{at.path}: width ({at.width}) must be a multiple of heads ({spec.heads}), or give head_size"
            )
        own = spec.head_size or at.width // spec.heads
        shared, value, rank = spec.shared_size or max(1, own // 2), spec.value_size or own, spec.kv_rank or 4 * own
        self.heads, self.shared, self.rank, self.sizes = spec.heads, shared, rank, (own, value)
        sizes = {"C": at.width, "H": spec.heads, "Q": spec.q_rank or 0, "R": rank, "V": value}
        sizes |= {"D+E": own + shared, "R+E": rank + shared, "D+V": own + value}
        # a gain is of what joins the stream; scores, and what goes into a norm, are left as they are
        if spec.q_rank is None:
            self.q = Linear(at.at("q", gain=1.0), "H D+E", "C", sizes)
        else:
            self.q = None
            self.q_down = Linear(at.at("q_down", gain=1.0), "Q", "C", sizes, spec.bias)
            self.hold(at, "q_norm", spec.norm, width=spec.q_rank)
            self.q_up = Linear(at.at("q_up", gain=1.0), "H D+E", "Q", sizes)
        self.kv_down = Linear(at.at("kv_down", gain=1.0), "R+E", "C", sizes, spec.bias)
        self.hold(at, "kv_norm", spec.norm, width=rank)
        self.kv_up = Linear(at.at("kv_up"), "H D+V", "R", sizes)
        self.o = Linear(at.at("o"), "C", "H V", sizes, spec.bias, joins=True)
        spec.pattern.check_labels(at.labels, f"{at.path}.pattern")
        self.pattern, self.dropout, self.whole = spec.pattern, spec.dropout, at.whole
        self.reaches = spec.pattern.reach(False), spec.pattern.reach(True)
        self.scale = spec.scale or (own + shared) ** -0.5
        # a pair costs 2 R where it would cost D + V; making the keys and values of a token costs R (D + V)
        self.few = rank * (own + value) // max(1, 2 * rank - own - value)
        self.hold(at, "position", spec.position, heads=spec.heads, head_size=shared)
        check_position(self.position, at, (Nowhere, OnPairs, OnScores))

    def init_state(self, room: Room) -> Past:
        refuse_ahead(self, self.pattern, self.whole)
        refuse_cuts(self.position)
        return make_store(room, [(1, self.rank), (1, self.shared)], self.reaches[room.restarts])

    def rewind(self, past: Store, until: Tensor) -> Store:
        return past.rewind(until)

    def forward(self, x: Tensor, ctx: Context, state: Store | None = None) -> tuple[Tensor, Past]:
        where = seen = ctx.where
        form = self.expanded if state is None or x.shape[1] > self.few else self.absorbed
        straight = ctx.straight and state is None
        latent, key = self.kv_down(x)[:, :, None].split((self.rank, self.shared), -1)
        latent = self.normed(self.kv_norm, latent)
        once = state is None or state.inplace  # softmax says why
        if once:
            key = self.turned(key, where)
        if state is not None:
            (latent, key), seen, state = state.append((latent, key), where, self.reach(where))
        if not once:
            key = self.turned(key, seen)
        scores = self.position(where, seen) if isinstance(self.position, OnScores) else None
        kept = Region(self.queries(x, where), key, latent, where, seen, self.pattern, self.scale, scores, straight)
        return self.o(ctx.point(self.path, "out", form(kept, ctx)).flatten(-2)), state

    def expanded(self, kept: Region, ctx: Context) -> Tensor:
        """(B, T, H, V): the keys and values of all heads are made from what is kept."""
        k, v = self.kv_up(kept.v.squeeze(2)).unflatten(-1, (self.heads, -1)).split(self.sizes, -1)
        k = torch.cat([k, kept.k.expand(-1, -1, self.heads, -1)], -1)
        return taken(self, replace(kept, k=k, v=v), ctx, self.dropout)

    def absorbed(self, kept: Region, ctx: Context) -> Tensor:
        """The same, where all heads read what is kept as their one key, of size R + E, and their one value, of size R.

        A plain product, since the fused form would repeat that key for every head.
        """
        k_up, v_up = self.kv_up.matrix.unflatten(0, (self.heads, -1)).split(self.sizes, 1)  # (H, D or V, R)
        own, turned = kept.q.split((self.sizes[0], self.shared), -1)
        q = torch.cat([torch.einsum("bthd,hdr->bthr", own, k_up), turned], -1)
        region = replace(kept, q=q, k=torch.cat([kept.v, kept.k], -1))
        dropout = self.dropout if self.training else 0.0
        out, _ = plain(region, lambda weights: ctx.point(self.path, "weights", weights), dropout)
        return torch.einsum("bthr,hvr->bthv", out, v_up)

    def queries(self, x: Tensor, where: Where) -> Tensor:
        """(B, T, H, D + E)."""
        q = self.q_up(self.normed(self.q_norm, self.q_down(x))) if self.q is None else self.q(x)
        own, shared = q.unflatten(-1, (self.heads, -1)).split((self.sizes[0], self.shared), -1)
        return torch.cat([own, self.turned(shared, where)], -1)

    def normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        """In the weights' own precision, than which autocast makes x coarser."""
        return norm(x.to(self.o.weight.dtype)).to(x.dtype)

    def turned(self, x: Tensor, where: Where) -> Tensor:
        """(B, T, H or 1, E) as the position scheme turns it."""
        return self.position(x, where) if isinstance(self.position, OnPairs) else x

    def reach(self, where: Where) -> Reach:
        """What the pattern needs to be kept, for tokens that have these labels."""
        return self.reaches["start" in where.labels]
