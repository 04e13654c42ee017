"""BigBird (Zaheer et al. 2020) as its checkpoints are read: a text in blocks, the first and the last of them global.

out_i = sum_j softmax_j(q_i . k_j / sqrt D + log m_ij) v_j
m_ij = 1 + r  where j is in the first block and i neither in the first nor in the last
m_ij = 1      where else i or j is in the first or the last block, or their blocks are one or neighbours; 0 elsewhere

A text of at most (5 + 2 r) blocks is read whole: every m_ij is 1.

r counts the random blocks. The published code draws them only while it trains; when it predicts, each of the r is the
first block once more. That is done here always. Blocks that are random are `softmax` with a pattern:
near_blocks(64) | random_blocks(64) | global_tokens(global, first=64). Blocks are counted over the tokens of the text
alone, so that padding changes nothing; the published code counts padding too.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from anyformer.attention.heads import Headed
from anyformer.core.context import Context, Where
from anyformer.core.spec import Fraction, LayerSpec, Site, Size, Whole, spec
from anyformer.core.state import Past, Room
from anyformer.kernels.attention import Region
from anyformer.patterns.base import AnyPattern
from anyformer.patterns.full import Full
from anyformer.patterns.global_tokens import GlobalTokens
from anyformer.patterns.near_blocks import NearBlocks

ENDS = "big_bird"  # the label of tokens that see all: those of a text's first and last block


@spec
class BigBird(LayerSpec):
    """Attention to near blocks and to the text's first and last one, as BigBird predicts (Zaheer et al. 2020).

    block_size: tokens a block. random_blocks: how many times the first block is counted again. pattern: who may be seen
    at all. bias: of q, k and v; out_bias: of o; None: as bias. dropout: of the weights.
    """

    EXEMPT: ClassVar = {"state": "the last block is known only with the whole text"}

    heads: Size
    kv_heads: Size | None = None
    head_size: Size | None = None
    block_size: Size = 64
    random_blocks: Whole = 3
    pattern: AnyPattern = Full()
    bias: bool = False
    out_bias: bool | None = None
    dropout: Fraction = 0.0

    @classmethod
    def examples(cls) -> tuple[BigBird, ...]:
        return (
            cls(heads=4, kv_heads=2, block_size=2, random_blocks=1),
            cls(heads=3, head_size=5, block_size=1, random_blocks=2, bias=True, out_bias=False),
        )

    def build(self, at: Site) -> BigBirdAttention:
        return BigBirdAttention(self, at)


class BigBirdAttention(Headed):
    """Needs the whole text."""

    def __init__(self, spec: BigBird, at: Site) -> None:
        super().__init__(at, spec.heads, spec.kv_heads, spec.head_size, spec.bias, out_bias=spec.out_bias)
        spec.pattern.check_labels(at.labels, f"{at.path}.pattern")
        self.pattern = spec.pattern & (NearBlocks(spec.block_size) | GlobalTokens(ENDS))
        self.size, self.short = spec.block_size, (5 + 2 * spec.random_blocks) * spec.block_size
        self.again, self.scale, self.dropout = math.log1p(spec.random_blocks), self.head_size**-0.5, spec.dropout

    def init_state(self, room: Room) -> NoReturn:
        raise ValueError(
            f"{self.path}: a text's last block is known only with the whole text, so the text cannot be cut into "
            "calls; call the model without a state"
        )

    def rewind(self, past: Past, until: Tensor) -> Past:
        return past

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        ends, first = self.ends(ctx.where), ctx.where.offset < self.size
        counted = (~ends[:, :, None] & first[:, None])[:, None]  # (B, 1, T, T): whose first block counts 1 + r times
        scores = counted.to(torch.promote_types(x.dtype, torch.float32)) * self.again
        where = replace(ctx.where, labels={**ctx.where.labels, ENDS: ends.long()})
        region = Region(*self.split(x), where, where, self.pattern, self.scale, scores)
        return self.read(region, ctx, self.dropout), state

    def ends(self, where: Where) -> Tensor:
        """(B, T): the tokens of their text's first and last block, or of a text that is short."""
        offset, start = where.offset, where.time - where.offset
        same = start[:, :, None] == start[:, None]
        last = torch.where(same, offset[:, None], 0).amax(2)  # (B, T): of their text; padding's are below 0
        block = offset // self.size
        return (last < self.short) | (block == 0) | (block == last // self.size)
