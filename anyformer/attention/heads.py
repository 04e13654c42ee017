"""The projections that all mixers with heads share, under the names that all of them use: q, k, v, o.

Replacing one such mixer by another keeps a checkpoint's weights. Separate q, k and v are the truth; they are joined
only for the product.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer, Part
from anyformer.core.linear import Linear, joined
from anyformer.core.spec import NormSpec, PositionSpec, Ref, Site
from anyformer.kernels.attention import Region, attend, plain
from anyformer.patterns.base import Ahead, Pattern
from anyformer.positions.base import Nowhere, OnEdges, OnPairs, OnScores, Scheme

Over = Literal["head", "each_head", "all_heads"]


class Headed(Layer, ABC):
    """q (H D, C), k and v (G D, C), o (C, H D): H query heads over G key-value heads of size D.

    prefix: a region -> the same with keys and values before it that were learned later; None: there are none.
    """

    prefix: nn.Module | None
    position: Scheme
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    qk_norm_over: Over

    def __init__(
        self,
        at: Site,
        heads: int,
        kv_heads: int | None,
        head_size: int | None,
        bias: bool,
        source: int | None = None,
        out_bias: bool | None = None,
        k_bias: bool | None = None,
    ) -> None:
        """source: the width of what keys and values are made from; None: the stream's own.

        out_bias, k_bias: of o and of k; None: as bias.
        """
        super().__init__(at)
        groups = kv_heads or heads
        if heads % groups:
            raise ValueError(f"{at.path}: heads ({heads}) must be a multiple of kv_heads ({groups})")
        if head_size is None and at.width % heads:
            raise ValueError(f"{at.path}: width ({at.width}) must be a multiple of heads ({heads}), or give head_size")
        self.heads, self.groups, self.head_size = heads, groups, head_size or at.width // heads
        sizes = {"C": at.width, "S": source or at.width, "H": heads, "G": groups, "D": self.head_size}
        # a gain is of what joins the stream; scores are left as they are
        self.q = Linear(at.at("q", gain=1.0), "H D", "C", sizes, bias)
        self.k = Linear(at.at("k", gain=1.0), "G D", "S", sizes, bias if k_bias is None else k_bias)
        self.v = Linear(at.at("v"), "G D", "S", sizes, bias)
        out_bias = bias if out_bias is None else out_bias
        self.o = Linear(at.at("o"), "C", "H D", sizes, out_bias, joins=True)
        self.register_module("prefix", None)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) -> q (B, T, H, D), k and v (B, T, G, D), in one product."""
        q, k, v = joined(x, (self.q, self.k, self.v))
        return self.cut(q, self.heads), self.cut(k, self.groups), self.cut(v, self.groups)

    def cut(self, x: Tensor, heads: int) -> Tensor:
        """(B, T, H D) -> (B, T, H, D)."""
        return x.unflatten(-1, (heads, self.head_size))

    def normed(self, norm: nn.Module | None, x: Tensor) -> Tensor:
        """Queries or keys (B, T, H or G, D), each head by itself or all together, as the norm was built."""
        if norm is None:
            return x
        y = x.to(self.q.weight.dtype)  # autocast makes q and k coarser than the norm's own weights
        y = norm(y.flatten(-2)).view_as(y) if self.qk_norm_over == "all_heads" else norm(y)
        return y.to(x.dtype)

    def terms(
        self, q: Tensor, scale: float, where: Where, seen: Where
    ) -> tuple[Tensor | None, Callable[[Tensor], Tensor] | None]:
        """What the position scheme adds: to the scores; and to the output, from the weights."""
        if isinstance(self.position, OnScores):
            return self.position(where, seen), None
        if isinstance(self.position, OnEdges):
            return self.position(q * scale, where, seen)
        return None, None

    def read(self, region: Region, ctx: Context, dropout: float = 0.0) -> Tensor:
        """(B, T, C): what the queries take from a region of keys."""
        region = region if self.prefix is None else self.prefix(region)
        return self.join(ctx.point(self.path, "out", taken(self, region, ctx, dropout)))

    def join(self, x: Tensor) -> Tensor:
        """(B, T, H, D) -> (B, T, C)."""
        return self.o(x.flatten(-2))


class HeadNorms(Part):
    """A norm of its own for each head, by the head's number."""

    def __init__(self, at: Site, norm: NormSpec | Ref, heads: int, size: int) -> None:
        super().__init__(at)
        for head in range(heads):
            self.hold(at, str(head), norm, width=size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, D) -> (B, T, H, D)."""
        return torch.stack([getattr(self, str(head))(one) for head, one in enumerate(x.unbind(2))], 2)


def taken(mixer: Layer, region: Region, ctx: Context, dropout: float, name: str = "weights") -> Tensor:
    """(B, T, H, D): what the queries take from a region of keys; its weights are made only if the tape wants them.

    name: that of their point on the tape.
    """
    dropout = dropout if mixer.training else 0.0
    if ctx.tape is not None and ctx.tape.wants(f"{mixer.path}.{name}"):
        return plain(region, lambda weights: ctx.point(mixer.path, name, weights), dropout)[0]
    return attend([region], dropout)


def refuse_ahead(mixer: Layer, pattern: Pattern, whole: frozenset[str]) -> None:
    """Refuse a state, for a pattern that looks ahead. whole: labels whose marked tokens always come in one call."""
    if pattern.ahead(whole) == Ahead.ALL:
        raise ValueError(
            f"{mixer.path}: the pattern {str(pattern)!r} lets tokens see later ones, so the text cannot be cut into "
            "calls; call the model without a state, or use a causal pattern"
        )


def hold_position(
    mixer: Headed, at: Site, position: PositionSpec | Ref, kinds: tuple[type, ...] = (Nowhere, OnPairs, OnScores)
) -> None:
    """Build a mixer's position scheme, refusing one that cannot act there."""
    mixer.hold(at, "position", position, heads=mixer.heads, head_size=mixer.head_size)
    check_position(mixer.position, at, kinds)


def check_position(position: Scheme, at: Site, kinds: tuple[type, ...]) -> None:
    """Refuse a position scheme that cannot act in the mixer at a place."""
    if not isinstance(position, kinds):
        ways = " or ".join(kind.acts for kind in kinds if kind is not Nowhere)
        raise ValueError(
            f"{at.path}.position: acts {position.acts}; this mixer takes positions that act {ways}"
            + ("; put it at the model's own position" if position.acts == "on embeddings" else "")
        )


def hold_norms(mixer: Headed, at: Site, norm: NormSpec | Ref | None, over: Over) -> None:
    """Build a mixer's `q_norm` and `k_norm`: one for every head, one for each, or one as wide as all of them."""
    mixer.qk_norm_over = over
    if norm is None:
        if over != "head":
            raise ValueError(f"{at.path}.qk_norm_over: {over!r} without a norm does nothing; give qk_norm")
        mixer.q_norm = mixer.k_norm = None
        return
    for name, heads in (("q_norm", mixer.heads), ("k_norm", mixer.groups)):
        if over == "each_head":
            mixer.add_module(name, HeadNorms(at.at(name), norm, heads, mixer.head_size))
        else:
            mixer.hold(at, name, norm, width=mixer.head_size * (heads if over == "all_heads" else 1))
