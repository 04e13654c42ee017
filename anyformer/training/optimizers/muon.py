"""Muon (Jordan et al. 2024): a hidden matrix steps along the orthogonal matrix next to its gradient's mean.

m = b m + (1 - b) g,  u = b m + (1 - b) g,  w = w - lr (decay w + sqrt(max(1, rows / columns)) NS(u))
NS: x = u / |u|, then five times x = 3.4445 x - 4.775 (x xᵀ) x + 2.0315 (x xᵀ)² x, which brings singular values near 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.errors import ConfigError
from anyformer.core.spec import Decay, NotNegative, OptimizerSpec, Positive, spec
from anyformer.training.optimizers.adamw import AdamW
from anyformer.training.optimizers.base import groups, hidden_matrices, trained

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyformer.core.model import Model


@spec
class Muon(OptimizerSpec):
    """Hidden matrices by Muon (Jordan et al. 2024); tables, the head, vectors and stacks of matrices by AdamW.

    lr, momentum, weight_decay: of the hidden matrices. adamw: of all else, with a rate of its own.
    """

    lr: Positive = 0.02
    momentum: Decay = 0.95
    weight_decay: NotNegative = 0.01
    adamw: AdamW = AdamW(lr=3e-4, weight_decay=0.01)

    def make(self, model: Model) -> torch.optim.Optimizer:
        from torch.optim import Muon

        from anyformer.training.optimizers.joined import Joined

        hidden, rest = divided(model)
        if not hidden:
            raise ConfigError("optimizer: this model has no hidden matrices for muon; take adamw")
        some = groups(hidden, self.lr, self.weight_decay)
        return Joined(Muon(some, lr=self.lr, momentum=self.momentum), self.adamw.of(rest))

    def state_size(self, model: Model) -> int:
        hidden, rest = divided(model)
        return sum(p.numel() for p in hidden) + 2 * sum(p.numel() for p in rest)


def divided(model: Model) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The hidden matrices, and all others that are trained."""
    hidden = hidden_matrices(model)
    known = set(hidden)
    return hidden, [p for p in trained(model) if p not in known]
