"""Frozen dataclasses of tensors, registered as pytrees: what a past is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import torch
import torch.utils._pytree as pytree
from torch import Tensor

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def tree(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields hold tensors, or tuples, dicts and trees of them; B is the first axis of each."""
    cls = dataclass(frozen=True)(cls)
    pytree.register_dataclass(cls)
    return cls


def tree_map(function: Callable[..., Tensor], first: T, *rest: Any) -> T:
    """`function` of every tensor of `first` (and of its twins in `rest`), in the same structure."""
    return pytree.tree_map(function, first, *rest)


def tensors(value: object) -> list[Tensor]:
    """Every tensor in `value`, in a fixed order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def choose(rows: Tensor, yes: T, no: T) -> T:
    """Row by row `yes` where `rows` (B,) holds, else `no`."""
    return tree_map(lambda a, b: torch.where(rows.view(-1, *[1] * (a.dim() - 1)), a, b), yes, no)


def index_like(place: Tensor, value: Tensor) -> Tensor:
    """place (B, T) as an index for gather or scatter of value (B, T, …) along its second axis."""
    return place.view(*place.shape, *[1] * (value.dim() - 2)).expand_as(value)
