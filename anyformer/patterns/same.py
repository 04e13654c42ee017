"""Same: tokens that carry an equal label, as RMT's memory tokens do: `causal | same(memory)` (Bulatov et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from anyformer.core.spec import positional_spec
from anyformer.patterns.base import Ahead, Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class Same(Pattern):
    """Keys whose label equals the query's and is above zero: 0, what a token has when nothing is said, is no mark."""

    label: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]

    def sees(self, q: Where, k: Where) -> Tensor:
        mine, theirs = q.labels[self.label], k.labels[self.label]
        return (mine == theirs) & (theirs > 0)

    def ahead(self, whole: frozenset[str] = frozenset()) -> Ahead:
        return Ahead.PREFIX if self.label in whole else Ahead.ALL

    def labels(self) -> frozenset[str]:
        return frozenset({self.label})
