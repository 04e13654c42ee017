"""Full: everyone sees everyone, as in an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.spec import positional_spec
from anyformer.patterns.base import Pattern

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


@positional_spec
class Full(Pattern):
    """No pair is left out."""

    def sees(self, q: Where, k: Where) -> Tensor:
        return (q.time == q.time) & (k.time == k.time)  # True, in the shape of the pairs
