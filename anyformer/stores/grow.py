"""A store that grows: every call appends. Functional and differentiable; nothing is ever overwritten."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.tree import tree
from anyformer.stores.base import Reach, Store, Values, forgotten


@tree
class Grow(Store):
    """values: each (B, S, …) for the S tokens so far; where: (B, S)."""

    values: Values
    where: Where

    def append(self, values: Values, where: Where, reach: Reach) -> tuple[Values, Where, Grow]:
        seen = tuple(torch.cat([old, new.to(old.dtype)], 1) for old, new in zip(self.values, values, strict=True))
        store = Grow(seen, self.where.join(where))
        return store.values, store.where, store

    def rewind(self, until: Tensor) -> Grow:
        time = self.where.time.masked_fill(forgotten(self.where.time, until), -1)
        return Grow(self.values, replace(self.where, time=time))
