"""Adafactor (Shazeer & Stern 2018): the squares of a matrix's gradient by their means along rows and columns alone.

r = b r + (1 - b) rowmean(g²),  c = b c + (1 - b) colmean(g²),  v = r cᵀ / mean(r),  b = 1 - t^-decay
u = g / sqrt(v),  w = w - min(lr, 1 / sqrt(t)) max(0.001, RMS(w)) u / max(1, RMS(u) / clip)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from anyformer.core.spec import NotNegative, OptimizerSpec, Positive, spec
from anyformer.training.optimizers.base import groups, trained

if TYPE_CHECKING:
    import torch

    from anyformer.core.model import Model


@spec
class Adafactor(OptimizerSpec):
    """Steps relative to the weights' own size, with next to no state (Shazeer & Stern 2018).

    lr: of that size, and never more than 1 / sqrt(t). decay: how fast the memory of squares grows longer. clip: the
    largest step, in its own usual size. weight_decay: of matrices.
    """

    lr: Positive = 0.01
    decay: NotNegative = 0.8
    clip: Annotated[float, Field(ge=1)] = 1.0
    weight_decay: NotNegative = 0.0

    def make(self, model: Model) -> torch.optim.Adafactor:
        from torch.optim import Adafactor

        some = groups(trained(model), self.lr, self.weight_decay)
        return Adafactor(some, lr=self.lr, beta2_decay=-self.decay, d=self.clip)

    def state_size(self, model: Model) -> int:
        return sum(
            p.numel() if p.dim() < 2 else p.numel() // p.shape[-1] + p.numel() // p.shape[-2] for p in trained(model)
        )
