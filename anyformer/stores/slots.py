"""A bounded store that is functional: windows and segments in training. Each call makes new tensors."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.tree import index_like, tree, tree_map
from anyformer.stores.base import Reach, Store, Values, forgotten, slots_of


@tree
class Slots(Store):
    """values: each (B, N + 1, …); where: (B, N + 1); the last slot is junk."""

    values: Values
    where: Where

    def append(self, values: Values, where: Where, reach: Reach) -> tuple[Values, Where, Slots]:
        slot, write_first = slots_of(where, self.where, reach)
        kept = tree_map(lambda old, new: _put(old, slot, new), self.where, where)
        time = torch.cat([kept.time[:, :-1], torch.full_like(kept.time[:, :1], -1)], 1)
        written = tuple(_put(old, slot, new) for old, new in zip(self.values, values, strict=True))
        store = Slots(written, replace(kept, time=time))
        if write_first:
            return store.values, store.where, store
        seen = tuple(torch.cat([old, new.to(old.dtype)], 1) for old, new in zip(self.values, values, strict=True))
        return seen, self.where.join(where), store

    def rewind(self, until: Tensor) -> Slots:
        time = self.where.time.masked_fill(forgotten(self.where.time, until), -1)
        return Slots(self.values, replace(self.where, time=time))


def _put(old: Tensor, slot: Tensor, new: Tensor) -> Tensor:
    return old.scatter(1, index_like(slot, new), new.to(old.dtype))
