"""Near blocks: a text in blocks, each seen by itself and the two beside it (Zaheer et al. 2020, BigBird's window)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.spec import Count, positional_spec
from anyformer.patterns.base import Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class NearBlocks(Pattern):
    """Keys of the query's own block of `size` tokens and of its two neighbours, counted from their text's start."""

    size: Count

    def sees(self, q: Where, k: Where) -> Tensor:
        near = (q.offset // self.size - k.offset // self.size).abs() <= 1
        return near & (q.time - q.offset == k.time - k.offset)

    def reach(self, restarts: bool = False) -> tuple[float, float]:
        return 0, 2 * self.size
