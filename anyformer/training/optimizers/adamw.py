"""AdamW (Loshchilov & Hutter 2019): steps of the gradient's mean over its size, and a decay that neither of them sees.

m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g²,  w = w - lr (decay w + m / (1 - b1ᵗ) / (sqrt(v / (1 - b2ᵗ)) + eps))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from anyformer.core.spec import Decay, NotNegative, OptimizerSpec, Positive, spec
from anyformer.training.optimizers.base import groups, trained

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyformer.core.model import Model


@spec
class AdamW(OptimizerSpec):
    """Fused; matrices alone are decayed (Loshchilov & Hutter 2019)."""

    lr: Positive = 1e-3
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: NotNegative = 0.1
    eps: Positive = 1e-8

    def make(self, model: Model) -> torch.optim.AdamW:
        return self.of(trained(model))

    def of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """The optimiser of some parameters."""
        from torch.optim import AdamW

        some = groups(parameters, self.lr, self.weight_decay)
        return AdamW(some, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)

    def state_size(self, model: Model) -> int:
        return 2 * sum(p.numel() for p in trained(model))
