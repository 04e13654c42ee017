"""Which store a mixer gets for the room that it has and the pattern that it sees by."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch

from anyformer.core.context import Where
from anyformer.core.state import Room
from anyformer.stores.base import Reach, Store
from anyformer.stores.fixed import Fixed
from anyformer.stores.grow import Grow
from anyformer.stores.slots import Slots


def make_store(
    room: Room,
    shapes: Sequence[tuple[int, ...]],
    reach: Reach,
    dtypes: Sequence[torch.dtype] | None = None,
) -> Store:
    """An empty store for values of `shapes` a token. dtypes: None: the room's."""
    kinds = list(zip(shapes, dtypes or [room.dtype] * len(shapes), strict=True))
    need = min(sum(reach) + room.slack, inf if room.capacity is None else room.capacity)
    if need == inf:
        none = tuple(_zeros(room, 0, *kind) for kind in kinds)
        return Grow(none, room.like)
    size = int(need) + 1
    values = tuple(_zeros(room, size, *kind) for kind in kinds)
    return (Fixed if room.inplace else Slots)(values, Where.empty(room.like, size))


def _zeros(room: Room, length: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return room.like.coords.new_zeros(room.batch, length, *shape, dtype=dtype)
