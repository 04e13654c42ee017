"""Global tokens: a few see all and are seen by all (Beltagy et al. 2020, Longformer).

`window(257) | global_tokens(global)`; they are marked by a label, or by being among the first of their text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from anyformer.core.spec import Whole, positional_spec
from anyformer.patterns.base import Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class GlobalTokens(Pattern):
    """Pairs of which one is global: its label is above zero, or it is one of the first `first` tokens of its text."""

    label: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    first: Whole = 0

    def sees(self, q: Where, k: Where) -> Tensor:
        return self._marked(q) | self._marked(k)

    def labels(self) -> frozenset[str]:
        return frozenset({self.label})

    def _marked(self, tokens: Where) -> Tensor:
        return (tokens.labels[self.label] > 0) | (tokens.offset < self.first)
