"""Sinks: a text's first tokens stay visible (Xiao et al. 2023, StreamingLLM): `causal & (sinks(4) | window(512))`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from anyformer.core.spec import Count, positional_spec
from anyformer.patterns.base import Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class Sinks(Pattern):
    """The first `count` keys of a text."""

    count: Count

    def sees(self, q: Where, k: Where) -> Tensor:
        return (k.offset < self.count) & (q.time == q.time)  # the second term only gives the shape of the pairs

    def reach(self, restarts: bool = False) -> tuple[float, float]:
        # Where a row holds several texts, a later one's sinks are not among the first tokens of the row.
        return (0, math.inf) if restarts else (self.count, 0)
