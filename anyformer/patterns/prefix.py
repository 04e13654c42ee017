"""Prefix: all see a marked part of the text; `causal | prefix` is the prefix LM (Raffel et al. 2020, section 3.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.spec import positional_spec
from anyformer.patterns.base import Ahead, Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class Prefix(Pattern):
    """Keys whose label `prefix` is above zero."""

    def sees(self, q: Where, k: Where) -> Tensor:
        return (k.labels["prefix"] > 0) & (q.time == q.time)  # the second term only gives the shape of the pairs

    def labels(self) -> frozenset[str]:
        return frozenset({"prefix"})

    def ahead(self, whole: frozenset[str] = frozenset()) -> Ahead:
        return Ahead.PREFIX
