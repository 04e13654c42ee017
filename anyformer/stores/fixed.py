"""A bounded store that is written in place, for generation: a ring where the pattern forgets, else a slot a token.

Good for one call: the tensors that go in are the tensors that come out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.tree import index_like, tree, tree_map
from anyformer.stores.base import Reach, Store, Values, forgotten, slots_of


@tree
class Fixed(Store):
    """values: each (B, N + 1, …); where: (B, N + 1); the last slot is junk."""

    values: Values
    where: Where
    inplace = True

    def append(self, values: Values, where: Where, reach: Reach) -> tuple[Values, Where, Fixed]:
        slot, write_first = slots_of(where, self.where, reach)
        seen, seen_where = self.values, self.where
        if not write_first:
            seen = tuple(torch.cat([old, new.to(old.dtype)], 1) for old, new in zip(self.values, values, strict=True))
            seen_where = self.where.join(where)
        for old, new in zip(self.values, values, strict=True):
            _put_(old, slot, new)
        tree_map(lambda old, new: _put_(old, slot, new), self.where, where)
        self.where.time[:, -1] = -1
        return seen, seen_where, self

    def rewind(self, until: Tensor) -> Fixed:
        self.where.time.masked_fill_(forgotten(self.where.time, until), -1)
        return self


def _put_(old: Tensor, slot: Tensor, new: Tensor) -> Tensor:
    return old.scatter_(1, index_like(slot, new), new.to(old.dtype))
