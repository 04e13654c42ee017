"""What every store does, and the one rule for which slot a token gets.

One ring serves all patterns: of N slots the first `first` belong to the row's first tokens for good, the others go
round:

    slot(t) = t                                   if t < first
              first + (t - first) mod (N - first) otherwise

With N - first at least `last + slack`, where the pattern's reach is (first, last), nothing is overwritten that can
still be seen. A store of N slots holds one more, the junk slot, with time -1: padding and skipped writes go there, so
that shapes stay static.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from anyformer.core.context import Where

Values = tuple[Tensor, ...]  # each (B, S, …): keys and values, or whatever a mixer keeps for a token
Reach = tuple[float, float]


class Store(ABC):
    """values: each (B, N, …); where: (B, N)."""

    values: Values
    where: Where
    inplace: bool = False

    @abstractmethod
    def append(self, values: Values, where: Where, reach: Reach) -> tuple[Values, Where, Store]:
        """All that these tokens may see, where that is, and the store after them."""

    @abstractmethod
    def rewind(self, until: Tensor) -> Store:
        """Forget every token whose time is `until` (B,) or later."""


def forgotten(time: Tensor, until: Tensor) -> Tensor:
    """(B, N) of the times that go."""
    return time >= until[:, None]


def slots_of(where: Where, held: Where, reach: Reach) -> tuple[Tensor, bool]:
    """The slot (B, T) of each new token in a store of N slots and a junk slot, and whether to write before reading.

    A call may write first as long as no token that it writes takes the place of one that its other tokens still see.
    Otherwise it reads the old store and the new tokens side by side, then writes only what will be seen again.
    """
    slots, time = held.time.shape[1] - 1, where.time
    first, last = reach
    if slots < first + last:  # as many slots as the capacity: every time has its own
        return torch.where(time < 0, slots, time.clamp(max=slots)), True
    first, last = int(first), int(last)
    room = slots - first
    end = torch.maximum(time.amax(1), held.time.amax(1))[:, None] + 1
    kept = (time >= 0) & ((time < first) | (time >= end - room))
    slot = torch.where(time < first, time, first + (time - first) % max(room, 1))
    return torch.where(kept, slot, slots), time.shape[1] <= room - last + 1
