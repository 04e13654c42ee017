"""A head makes the model's output of the stream, and owns the loss, so that nobody ever holds all logits of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from anyformer.core.layer import Part
from anyformer.core.model import IGNORED

AT_ONCE = 2**24  # logits that are held at a time


class Head(Part, ABC):
    """(B, T, C) -> logits (B, T, V)."""

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:
        """(…, C) -> logits (…, V)."""

    @property
    @abstractmethod
    def size(self) -> int:
        """V."""

    def loss(self, h: Tensor, targets: Tensor) -> Tensor:
        """(B, T): minus the natural logarithm of each target's probability; 0 where the target is -100."""
        flat, wanted = h.flatten(0, 1), targets.flatten()
        rows = max(1, AT_ONCE // self.size)
        if flat.shape[0] <= rows:
            return self._some(flat, wanted).view_as(targets)
        # a chunk's logits are made anew in the backward pass
        parts = [
            checkpoint(self._some, h_part, part, use_reentrant=False)
            for h_part, part in zip(flat.split(rows), wanted.split(rows), strict=True)
        ]
        return torch.cat(parts).view_as(targets)

    def _some(self, h: Tensor, targets: Tensor) -> Tensor:
        logits = self(h)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
