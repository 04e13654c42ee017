"""State: a past and what the host knows of it.

Two choices, kept apart. Size: growing, or bounded by a capacity or by what a pattern can still see. Writing: functional
and differentiable, or in place for generation; a state that is written in place is good for one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from anyformer.core.context import Source, Where
from anyformer.core.tree import tensors, tree, tree_map

Past = Any  # a tree of tensors, rows first; each mechanism's own dataclass sits in its own file; () is no past at all


@dataclass(frozen=True)
class Room:
    """What a layer must make room for.

    like: a Where (B, 0): names of labels, rank of coords, device.
    capacity: the most tokens a row will ever hold; None: no bound.
    slack: how many tokens may be forgotten again, over any number of calls.
    """

    like: Where
    sources: Mapping[str, Source]
    capacity: int | None
    slack: int
    inplace: bool
    dtype: torch.dtype

    @property
    def batch(self) -> int:
        return self.like.time.shape[0]

    @property
    def restarts(self) -> bool:
        """Whether several texts may follow each other in a row."""
        return "start" in self.like.labels


@tree
class ModelPast:
    """The layers' pasts and the clock.

    clock, since, high: (B,), tokens so far, before the last call, and at most ever (before tokens were forgotten).
    texts: (B, slack + 1, 2), the document and the start of the text of the last tokens, at slot time mod (slack + 1);
    (B, 0, 2) where the model knows no documents.
    """

    body: Past
    clock: Tensor
    since: Tensor
    high: Tensor
    texts: Tensor


@dataclass
class Mark:
    """What the host knows without asking the device; count: an upper bound of the clock."""

    capacity: int | None
    slack: int
    inplace: bool
    count: int = 0
    used: bool = False


@dataclass(frozen=True, eq=False)
class State:
    """The past of a model. No pytree: only `past` enters compiled code."""

    past: ModelPast
    mark: Mark

    def fork(self) -> State:
        """An independent copy, good for a call of its own."""
        return State(tree_map(torch.clone, self.past), replace(self.mark, used=False))

    def select(self, rows: Tensor | Sequence[int]) -> State:
        """The rows in that order, repeated or left out: beams, finished texts."""
        index = torch.as_tensor(rows, device=self.past.clock.device)
        return self._of(lambda x: x.index_select(0, index))

    def detach(self) -> State:
        """The same numbers without their history."""
        return self._of(torch.detach)

    @staticmethod
    def stack(states: Sequence[State]) -> State:
        """Rows of several states of one shape in one batch."""
        marks = [state.mark for state in states]
        if len({(m.capacity, m.slack, m.inplace) for m in marks}) != 1:
            raise ValueError("states to be stacked must share capacity, slack and way of writing")
        shapes = {tuple(x.shape[1:] for x in tensors(state.past)) for state in states}
        if len(shapes) != 1:
            raise ValueError("states to be stacked must have the same shapes: give init_state a capacity")
        past = tree_map(lambda *xs: torch.cat(xs, 0), states[0].past, *[state.past for state in states[1:]])
        mark = replace(marks[0], count=max(m.count for m in marks), used=False)
        return State(past, mark)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that the past holds, each memory once."""
        return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors(self.past)}.values())

    def take(self) -> None:
        """Claim the state for a call."""
        if not self.mark.inplace:
            return
        if self.mark.used:
            raise ValueError(
                "this state was used by an earlier call and is written in place; fork() it before that call"
            )
        if torch.is_grad_enabled():
            raise ValueError("this state is written in place, which gradients cannot follow; use torch.no_grad()")
        self.mark.used = True

    def _of(self, change: Callable[[Tensor], Tensor]) -> State:
        return State(tree_map(change, self.past), replace(self.mark, used=False))
