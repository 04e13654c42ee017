"""Longformer (Beltagy et al. 2020): local attention, and a few global tokens that read with projections of their own.

out_i = sum_j softmax_j(q_i . k_j / sqrt D) v_j over the tokens near i and the global ones
i global: q_global, k_global, v_global in the place of q, k, v, over all tokens

An encoder's: global tokens see what comes later. A pattern says which tokens are global: those that see themselves by
it. There are no positions within, as in the published checkpoints, which add them to the embeddings.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from anyformer.attention.heads import Headed, taken
from anyformer.core.context import Context
from anyformer.core.linear import Linear
from anyformer.core.spec import Fraction, LayerSpec, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.kernels.attention import Region
from anyformer.patterns.base import AnyPattern
from anyformer.patterns.global_tokens import GlobalTokens
from anyformer.patterns.window import Window


@spec
class Longformer(LayerSpec):
    """Local attention with global tokens that have projections of their own (Beltagy et al. 2020).

    pattern: whom a token sees beside the global ones; a window of w / 2 tokens to each side is window(w / 2 + 1).
    global_tokens: which tokens are global, and whom they see. bias: of the six projections; out_bias: of o; None: as
    bias. dropout: of the weights.
    """

    EXEMPT: ClassVar = {"state": "global tokens see the whole text"}

    heads: Size
    kv_heads: Size | None = None
    head_size: Size | None = None
    pattern: AnyPattern = Window(257)
    global_tokens: AnyPattern = GlobalTokens("global")
    bias: bool = False
    out_bias: bool | None = None
    dropout: Fraction = 0.0

    @classmethod
    def examples(cls) -> tuple[Longformer, ...]:
        marked, first = GlobalTokens("kind"), GlobalTokens("kind", first=2)
        return (
            cls(heads=4, kv_heads=2, pattern=Window(3), global_tokens=marked),
            cls(heads=3, head_size=5, pattern=Window(4), global_tokens=first, bias=True, out_bias=False),
        )

    def build(self, at: Site) -> LongformerAttention:
        return LongformerAttention(self, at)


class LongformerAttention(Headed):
    """Beside q, k, v and o: q_global (H D, C), k_global and v_global (G D, C)."""

    def __init__(self, spec: Longformer, at: Site) -> None:
        super().__init__(at, spec.heads, spec.kv_heads, spec.head_size, spec.bias, out_bias=spec.out_bias)
        spec.pattern.check_labels(at.labels, f"{at.path}.pattern")
        spec.global_tokens.check_labels(at.labels, f"{at.path}.global_tokens")
        self.local, self.everywhere = spec.pattern | spec.global_tokens, spec.global_tokens
        self.scale, self.dropout = self.head_size**-0.5, spec.dropout
        sizes = {"C": at.width, "H": self.heads, "G": self.groups, "D": self.head_size}
        self.q_global = Linear(at.at("q_global", gain=1.0), "H D", "C", sizes, spec.bias)
        self.k_global = Linear(at.at("k_global", gain=1.0), "G D", "C", sizes, spec.bias)
        self.v_global = Linear(at.at("v_global"), "G D", "C", sizes, spec.bias)

    def init_state(self, room: Room) -> NoReturn:
        raise ValueError(
            f"{self.path}: global tokens see the whole text, so the text cannot be cut into calls; call the model "
            "without a state"
        )

    def rewind(self, past: Past, until: Tensor) -> Past:
        return past

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        where = ctx.where
        near = Region(*self.split(x), where, where, self.local, self.scale)
        q, k, v = self.cut(self.q_global(x), self.heads), *self.global_keys(x)
        far = Region(q, k, v, where, where, self.everywhere, self.scale)
        is_global = self.everywhere.sees(where, where)[..., None, None]  # (B, T, 1, 1): each token as it sees itself
        from_far = taken(self, far, ctx, self.dropout, "global_weights")
        out = torch.where(is_global, from_far, taken(self, near, ctx, self.dropout))
        return self.join(ctx.point(self.path, "out", out)), state

    def global_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """k and v (B, T, G, D) for global queries."""
        return self.cut(self.k_global(x), self.groups), self.cut(self.v_global(x), self.groups)
