"""Window: the nearest tokens, both sides (Beltagy et al. 2020, Longformer); `causal & window(512)` looks back only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.spec import Count, positional_spec
from anyformer.patterns.base import Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class Window(Pattern):
    """Keys fewer than `size` tokens away; the query itself is one of the `size` that lie behind."""

    size: Count

    def sees(self, q: Where, k: Where) -> Tensor:
        return (q.time - k.time).abs() < self.size

    def reach(self, restarts: bool = False) -> tuple[float, float]:
        return 0, self.size
