"""Causal: look back, and at oneself (Vaswani et al. 2017, section 3.2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.spec import positional_spec
from anyformer.patterns.base import Ahead, Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class Causal(Pattern):
    """Keys that are not later than the query."""

    def sees(self, q: Where, k: Where) -> Tensor:
        return k.time <= q.time

    def ahead(self, whole: frozenset[str] = frozenset()) -> Ahead:
        return Ahead.NONE
