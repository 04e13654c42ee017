"""Recurrent: layers whose past is a fixed-size summary, written as a start and a run; the law of state comes with it.

What such a layer has folded into its summary it cannot forget. Where tokens may be forgotten again (`slack`), the last
ones are held beside the summary and folded in when they are out of reach.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer
from anyformer.core.spec import Site
from anyformer.core.state import Past, Room
from anyformer.core.tree import choose, index_like, tree, tree_map


@tree
class Folded:
    """summary: of what is folded in. x: (B, slack, C), where: (B, slack), the last tokens, which may be forgotten."""

    summary: Past
    x: Tensor
    where: Where


class Recurrent(Layer, ABC):
    """A layer that says how it starts and how it runs. Its start must not depend on the text."""

    def __init__(self, at: Site) -> None:
        super().__init__(at)
        self.width = at.width

    @abstractmethod
    def start(self, batch: int, dtype: torch.dtype) -> Past:
        """The summary before the first token: a tree of tensors, rows first."""

    @abstractmethod
    def run(self, x: Tensor, where: Where, summary: Past, ctx: Context) -> tuple[Tensor, Past]:
        """(B, T, C) and the summary so far -> (B, T, C) and the summary after them.

        Padding (`~where.real`) must leave the summary as it is; a text begins anew where `where.offset` is 0.
        """

    def init_state(self, room: Room) -> Folded:
        x = room.like.time.new_zeros(room.batch, room.slack, self.width, dtype=room.dtype)
        return Folded(self.start(room.batch, room.dtype), x, Where.empty(room.like, room.slack))

    def rewind(self, past: Folded, until: Tensor) -> Folded:
        start = self.start(until.shape[0], past.x.dtype)
        time = past.where.time
        where = Where(time.masked_fill(time >= until[:, None], -1), past.where.coords, past.where.labels)
        return Folded(choose(until <= 0, start, past.summary), past.x, where)

    def forward(self, x: Tensor, ctx: Context, state: Folded | None = None) -> tuple[Tensor, Past]:
        if state is None:
            return self.run(x, ctx.where, self.start(x.shape[0], x.dtype), ctx)[0], None
        slack, length = state.x.shape[1], x.shape[1]
        if slack == 0:
            y, summary = self.run(x, ctx.where, state.summary, ctx)
            return y, Folded(summary, state.x, state.where)
        both, where = torch.cat([state.x, x.to(state.x.dtype)], 1), state.where.join(ctx.where)
        order = where.time.argsort(dim=1, stable=True)  # padding first, so that the last `slack` are the latest
        both, where = _along(both, order), tree_map(lambda value: _along(value, order), where)
        old, new = tree_map(lambda value: value[:, :length], where), tree_map(lambda value: value[:, length:], where)
        y, summary = self.run(both[:, :length], old, state.summary, ctx)
        rest, _ = self.run(both[:, length:], new, summary, ctx)
        y = _along(torch.cat([y, rest], 1), order.argsort(1))[:, slack:]
        x, where = tree_map(torch.clone, (both[:, length:], new))  # a slice would keep the whole call alive
        return y, Folded(summary, x, where)


def _along(value: Tensor, order: Tensor) -> Tensor:
    """value (B, T, …) in the order (B, T)."""
    return value.gather(1, index_like(order, value))
