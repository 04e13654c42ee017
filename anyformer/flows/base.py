"""A flow is held by a stack: it opens the stream into a history, runs each block in it, and closes it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from anyformer.core.layer import Part

Block = Callable[[Tensor], Tensor]
History = Any  # whatever the flow hands on: the stream, all streams so far, several streams side by side


class Flow(Part, ABC):
    """Acts on each token alone, so that it needs no state. The stack tells it `at.depth`: (0, number of blocks)."""

    @abstractmethod
    def open(self, x: Tensor) -> History:
        """Before the first block."""

    @abstractmethod
    def around(self, index: int, block: Block, history: History) -> History:
        """One block."""

    @abstractmethod
    def close(self, history: History) -> Tensor:
        """(B, T, C) after the last block."""
