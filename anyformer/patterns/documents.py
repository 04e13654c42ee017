"""Documents: texts packed into one row do not see each other (Krell et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.spec import positional_spec
from anyformer.patterns.base import Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class Documents(Pattern):
    """Keys of the query's own document."""

    def sees(self, q: Where, k: Where) -> Tensor:
        return q.labels["document"] == k.labels["document"]

    def labels(self) -> frozenset[str]:
        return frozenset({"document"})
