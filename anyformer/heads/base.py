"""Token heads: one answer for each token, with losses that are made in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from anyformer.core.context import Where
from anyformer.core.head import IGNORED, Head
from anyformer.core.spec import Site

AT_ONCE = 2**24  # logits that are held at a time
Labels = Annotated[tuple[str, ...], Field(min_length=1)]  # the names of classes, in order


def count(labels: Labels | None, at: Site) -> int:
    """How many classes there are."""
    if labels is None:
        raise ValueError(f"{at.path}.labels: the classes are not known; training sets them from the data")
    if len(set(labels)) < len(labels):
        raise ValueError(f"{at.path}.labels: the classes must differ; came {', '.join(labels)}")
    return len(labels)


class TokenHead(Head, ABC):
    """(B, T, C) -> logits (B, T, V). size: V."""

    size: int

    @abstractmethod
    def logits(self, h: Tensor) -> Tensor:
        """(…, C) -> (…, V)."""

    def forward(self, h: Tensor, where: Where) -> Tensor:
        return self.logits(h)

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        def some(h: Tensor, targets: Tensor) -> Tensor:
            return nats(self.logits(h), targets, smoothing)

        return in_chunks(some, self.size, h.flatten(0, 1), targets.flatten()).view_as(targets)


def in_chunks(losses: Callable[..., Tensor], size: int, *columns: Tensor) -> Tensor:
    """(N,) losses of columns (N, …), of so many rows at a time that AT_ONCE logits are held, `size` a row."""
    rows = max(1, AT_ONCE // size)
    if len(columns[0]) <= rows:
        return losses(*columns)
    # a chunk's logits are made anew in the backward pass
    chunks = zip(*(column.split(rows) for column in columns), strict=True)
    return torch.cat([checkpoint(losses, *chunk, use_reentrant=False) for chunk in chunks])


def nats(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """(N,) cross-entropies of logits (N, K), in float32 at least; 0 where the target is -100."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED, label_smoothing=smoothing)
