"""Random blocks: links between blocks of a text that were drawn once (Zaheer et al. 2020, BigBird).

block i > 0 draws `count` of the blocks 0 … i - 1;  two tokens meet where the block of one drew the block of the other

A draw is a function of (seed, i) alone, so that neither the length of a text nor its cuts change who meets. BigBird's
code draws from all of a text's blocks, as many as its length gives, anew for each head; and only while it trains.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from anyformer.core.spec import Count, Whole, positional_spec
from anyformer.patterns.base import Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where

LOW = 2**31 - 1  # products of two such numbers fit into an int64


@positional_spec
class RandomBlocks(Pattern):
    """Keys in blocks of `size` tokens that the query's block drew, or that drew it; layers differ by their seeds."""

    size: Count
    count: Count = 3
    seed: Whole = 0

    def sees(self, q: Where, k: Where) -> Tensor:
        mine, theirs = q.offset // self.size, k.offset // self.size
        links = [(self._drawn(mine, n) == theirs) | (self._drawn(theirs, n) == mine) for n in range(self.count)]
        return reduce(or_, links) & (q.time - q.offset == k.time - k.offset)

    def _drawn(self, block: Tensor, number: int) -> Tensor:
        """What each block drew as its `number`-th; -1 where there was nothing to draw."""
        key = (self.seed * 0x3C6EF372 + number * 0x1B873593) & LOW
        mixed = (block * 0x2545F491 + key) & LOW
        for factor in (0x7FEB352D, 0x31848BAB):
            mixed = ((mixed ^ (mixed >> 15)) * factor) & LOW
        return ((mixed ^ (mixed >> 16)) % block.clamp(min=1)).masked_fill(block < 1, -1)
