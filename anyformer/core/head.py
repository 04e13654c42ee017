"""What reads the stream at a model's end, and owns the loss, so that nobody ever holds all logits of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.layer import Part

IGNORED = -100  # a target that has no loss


class Head(Part, ABC):
    """Token heads answer for every token, pooled ones for every row: these read the whole text, in one call."""

    pools: bool = False

    @abstractmethod
    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> (B, T, V); where it pools: (B, K)."""

    @abstractmethod
    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        """Nats of each target, (B, T), where it pools (B,), in float32 at least; 0 where the target is -100.

        smoothing: e, for (1 - e) times the loss of the target and e times the mean over all answers (Szegedy et al.
        2016). A head without a loss raises ValueError.
        """
