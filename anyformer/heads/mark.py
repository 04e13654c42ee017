"""Every class that a text has, none or many (multi-label classification): p = sigmoid(W x + b) of a pooled vector x.

The loss of a row is the mean over its K classes of -log p where the text has the class, of -log(1 - p) where not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Where
from anyformer.core.spec import Site, spec
from anyformer.heads.base import Labels, count
from anyformer.heads.pooling import PooledHead, PooledSpec


@spec
class Mark(PooledSpec):
    """Every class that a text has, each decided by itself.

    labels: the names of the classes.
    """

    labels: Labels

    @classmethod
    def examples(cls) -> tuple[Mark, ...]:
        return (cls(labels=("rude", "long", "late"), hidden=True),)

    def build(self, at: Site) -> MarkHead:
        return MarkHead(self, at, count(self.labels, at))


class MarkHead(PooledHead):
    """A logit for each class."""

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        """(B,) of targets (B, K): 1 where the text has the class, else 0."""
        if smoothing:
            raise ValueError(f"{self.path}: smoothing is of classes that exclude each other; these do not")
        said = self(h, where)
        if targets.shape != said.shape:
            raise ValueError(f"{self.path}: targets must be {tuple(said.shape)}; came {tuple(targets.shape)}")
        exact = torch.promote_types(said.dtype, torch.float32)
        return F.binary_cross_entropy_with_logits(said.to(exact), targets.to(exact), reduction="none").mean(1)
