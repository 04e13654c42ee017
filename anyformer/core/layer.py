"""Part and Layer: a module that knows its address, and one that obeys the law of state.

The law: however a sequence is cut into calls, the outputs are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from anyformer.core.context import Context
from anyformer.core.fills import Fill
from anyformer.core.spec import Builds, Ref, Site
from anyformer.core.state import Past, Room


def extent(axis: str, sizes: Mapping[str, int]) -> int:
    """How long an axis such as "H D" is."""
    return prod(sizes[letter] for letter in axis.split())


class Part(nn.Module):
    """A module whose path is its spec's path, and whose tensors each declare named axes and a fill."""

    def __init__(self, at: Site) -> None:
        super().__init__()
        self.path = at.path
        self.axes: dict[str, tuple[str, ...]] = {}
        self.fills: dict[str, Fill] = {}

    def param(self, name: str, axes: tuple[str, ...], sizes: Mapping[str, int], fill: Fill) -> None:
        """`self.param("weight", ("H D", "C"), {"H": 4, "D": 8, "C": 32}, normal(0.02))` declares a (32, 32) weight."""
        self.register_parameter(name, nn.Parameter(torch.empty([extent(axis, sizes) for axis in axes])))
        self.axes[name] = axes
        self.fills[name] = fill

    def buffer(self, name: str, shape: tuple[int, ...], fill: Fill) -> None:
        """A tensor that is computed, not learned and not saved."""
        self.register_buffer(name, torch.empty(shape), persistent=False)
        self.fills[name] = fill

    def hold(self, at: Site, name: str, part: Builds[nn.Module] | Ref, **change: Any) -> None:
        """Build `part` at `name` below `at`; what a Ref names stays registered with its owner alone."""
        built = at.build(part, name, **change)
        if isinstance(part, Ref):
            self.__dict__[name] = built
        else:
            self.add_module(name, built)


class Layer(Part, ABC):
    """Vectors and a past in, vectors and a past out: mixers, feed-forwards, blocks, stacks and memories alike."""

    @abstractmethod
    def init_state(self, room: Room) -> Past:
        """The past before the first token. A mechanism that cannot be cut raises ValueError."""

    @abstractmethod
    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        """(B, T, C) and a past -> (B, T, C) and the past after it; None: start fresh, keep nothing."""

    @abstractmethod
    def rewind(self, past: Past, until: Tensor) -> Past:
        """Forget every token whose time is `until` (B,) or later; `until` 0 is always possible."""


class Stateless(Layer, ABC):
    """A layer that treats every token alone: nothing to remember."""

    def init_state(self, room: Room) -> Past:
        return ()

    def rewind(self, past: Past, until: Tensor) -> Past:
        return past
