"""The grid that all segment memories walk: ragged rows are laid on segments counted from the start of each text.

A segment begins where a text's offset is a multiple of S, never where a call begins. A call of T tokens touches at most
(T + S - 2) // S + 1 segments of a row; only where texts follow each other in a row must the host count them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyformer.core.context import BEYOND, Where
from anyformer.core.tree import index_like, tree_map


@dataclass(frozen=True)
class Piece:
    """What one call has of one segment. x: (B, W, C); where: (B, W), -1 where the row has no token for the place.

    begins, ends, fresh: (B,), whether the segment's first, last, and its text's first token are here.
    start, index: (B,), the time of the segment's first token and its number in its text, where the piece has a token.
    """

    x: Tensor
    where: Where
    begins: Tensor
    ends: Tensor
    fresh: Tensor
    start: Tensor
    index: Tensor


def align(x: Tensor, where: Where, size: int) -> tuple[list[Piece], Callable[[Sequence[Tensor]], Tensor]]:
    """Pieces of x (B, T, C), in order, and the way back: outputs (B, W, C) of every piece -> (B, T, C)."""
    batch, length, _ = x.shape
    offset, real = where.offset, where.real
    begins = real & (offset % size == 0)
    carried = real & (begins.cumsum(1) == 0)  # of a segment that an earlier call began
    number = begins.cumsum(1) - (~carried.any(1, keepdim=True)).long()
    count = (length + size - 2) // size + 1
    if "start" in where.labels:
        count = max(1, int(number.amax()) + 1)
    width = min(size, length)
    first = torch.where(carried, offset, BEYOND).amin(1, keepdim=True) % size  # place in its segment of the first token
    place = torch.where(carried, offset % size - first, offset % size)
    slot = torch.where(real, number * width + place, count * width)

    def grid(value: Tensor, blank: int) -> Tensor:
        empty = value.new_full((batch, count * width + 1, *value.shape[2:]), blank)
        return empty.scatter(1, index_like(slot, value), value)[:, :-1].unflatten(1, (count, width))

    xs = grid(x, 0).unbind(1)
    wheres = [tree_map(lambda value, i=i: grid(value, -1)[:, i], where) for i in range(count)]
    pieces = [_piece(px, pw, size) for px, pw in zip(xs, wheres, strict=True)]

    def back(outs: Sequence[Tensor]) -> Tensor:
        joined = torch.cat([*outs, outs[0].new_zeros(batch, 1, outs[0].shape[-1])], 1)
        return joined.gather(1, slot[..., None].expand(-1, -1, joined.shape[-1]))

    return pieces, back


def _piece(x: Tensor, where: Where, size: int) -> Piece:
    offset = torch.where(where.real, where.offset, -1)
    place = torch.where(where.real, offset % size, -1)
    start = (where.time - place).amax(1)
    begins, ends = (place == 0).any(1), (place == size - 1).any(1)
    return Piece(x, where, begins, ends, (offset == 0).any(1), start, offset.amax(1) // size)
