"""Causal linear attention (Katharopoulos et al. 2020): a feature map for the softmax, so that the past is a sum.

phi = elu + 1;  S_t = sum_{j<=t} phi(k_j) v_jᵀ,  z_t = sum_{j<=t} phi(k_j)
out_t = S_tᵀ phi(q_t) / (z_t . phi(q_t) + eps)

Each text of a row has sums of its own. There is no 1/sqrt D.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.attention.heads import Headed
from anyformer.core.context import Context, Where
from anyformer.core.spec import LayerSpec, Positive, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.core.tree import tree, tree_map
from anyformer.kernels.linear import chunked


@spec
class Linear(LayerSpec):
    """Causal attention whose past is one matrix a head (Katharopoulos et al. 2020)."""

    heads: Size
    kv_heads: Size | None = None
    head_size: Size | None = None
    bias: bool = False
    eps: Positive = 1e-6

    def build(self, at: Site) -> LinearAttention:
        return LinearAttention(self, at)


@tree
class Tokens:
    """q, k: features (B, H, T, D); v: (B, H, T, D); time, start: (B, T), when they came and when their texts began."""

    q: Tensor
    k: Tensor
    v: Tensor
    time: Tensor
    start: Tensor

    def join(self, later: Tokens) -> Tokens:
        """These tokens, then `later` ones."""
        q, k, v = (
            torch.cat(pair, 2) for pair in zip((self.q, self.k, self.v), (later.q, later.k, later.v), strict=True)
        )
        return Tokens(q, k, v, torch.cat([self.time, later.time], 1), torch.cat([self.start, later.start], 1))

    def along(self, order: Tensor) -> Tokens:
        """In the order (B, T)."""

        def pick(x: Tensor) -> Tensor:
            return x.gather(2, order[:, None, :, None].expand_as(x))

        time, start = self.time.gather(1, order), self.start.gather(1, order)
        return Tokens(pick(self.q), pick(self.k), pick(self.v), time, start)

    def between(self, first: int, last: int) -> Tokens:
        """Places `first` to `last - 1`."""
        q, k, v = (x[:, :, first:last] for x in (self.q, self.k, self.v))
        return Tokens(q, k, v, self.time[:, first:last], self.start[:, first:last])


@tree
class Sums:
    """S: (B, H, D, D), z: (B, H, D), of the text that began at `text` (B,): all that is known of what is folded in.

    held: the last `slack` tokens, in order, not folded in yet so that they can be forgotten again.
    """

    S: Tensor
    z: Tensor
    text: Tensor
    held: Tokens


class LinearAttention(Headed):
    """Its past is a pair of sums, however long the text."""

    def __init__(self, spec: Linear, at: Site) -> None:
        super().__init__(at, spec.heads, spec.kv_heads, spec.head_size, spec.bias)
        self.eps = spec.eps

    def init_state(self, room: Room) -> Sums:
        batch, heads, size = room.batch, self.heads, self.head_size
        dtype = torch.promote_types(room.dtype, torch.float32)
        none = room.like.time.new_zeros(batch, heads, room.slack, size, dtype=dtype)
        time = room.like.time.new_full((batch, room.slack), -1)
        S = none.new_zeros(batch, heads, size, size)
        return Sums(S, S[..., 0], room.like.time.new_zeros(batch), Tokens(none, none, none, time, time))

    def rewind(self, past: Sums, until: Tensor) -> Sums:
        gone, empty = past.held.time >= until[:, None], until <= 0
        kept = ~gone[:, None, :, None]
        held = Tokens(
            past.held.q, past.held.k * kept, past.held.v, past.held.time.masked_fill(gone, -1), past.held.start
        )
        alive = (~empty)[:, None, None]
        return Sums(past.S * alive[..., None], past.z * alive, past.text * ~empty, held)

    def forward(self, x: Tensor, ctx: Context, state: Sums | None = None) -> tuple[Tensor, Past]:
        new = self.tokens(x, ctx.where)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # there is none for meta
            if state is None:
                room = Room(ctx.where.none, {}, None, 0, False, new.q.dtype)
                return self.join(self.read(new, self.init_state(room))[0].to(x.dtype)), None
            out, state = self.read(new, state)
        return self.join(out.to(x.dtype)), state

    def tokens(self, x: Tensor, where: Where) -> Tokens:
        """What the recurrence reads of (B, T, C); padding adds nothing to it."""
        q, k, v = self.split(x)
        repeat = self.heads // self.groups
        k, v = (y.repeat_interleave(repeat, 2) for y in (k, v))
        dtype = torch.promote_types(x.dtype, torch.float32)
        q, k, v = (y.to(dtype).transpose(1, 2) for y in (q, k, v))  # (B, H, T, D)
        start = where.time - where.offset
        return Tokens(feature(q), feature(k) * where.real[:, None, :, None], v, where.time, start)

    def read(self, new: Tokens, past: Sums) -> tuple[Tensor, Sums]:
        """Outputs (B, T, H, D) for the new tokens, and the sums with all but the last `slack` tokens folded in."""
        slack, length = past.held.time.shape[1], new.time.shape[1]
        both, order = new, None
        if slack:
            both = past.held.join(new)
            order = both.time.argsort(dim=1, stable=True)  # padding first
            both = both.along(order)
        old, held = both.between(0, length), both.between(length, length + slack)
        top, bottom, S, z, text = chunked(old.q, old.k, old.v, old.start, past.S, past.z, past.text)
        if order is not None:
            top2, bottom2, *_ = chunked(held.q, held.k, held.v, held.start, S, z, text)
            top, bottom = torch.cat([top, top2], 2), torch.cat([bottom, bottom2], 2)
            back = order.argsort(1)[:, None, slack:]
            top = top.gather(2, back[..., None].expand(*top.shape[:2], -1, top.shape[3]))
            bottom = bottom.gather(2, back.expand(*bottom.shape[:2], -1))
        held = tree_map(torch.clone, held) if slack else past.held  # a slice would keep the whole call's tensors alive
        return (top / (bottom[..., None] + self.eps)).transpose(1, 2), Sums(S, z, text, held)


def feature(x: Tensor) -> Tensor:
    """phi = elu + 1: positive, and never zero."""
    return F.elu(x) + 1
