"""AdamW (Loshchilov & Hutter 2019), fused, with weight decay on matrices only."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import AdamW

from anyformer.recipes.schema import Optimizer


def make_optimizer(spec: Optimizer, model: nn.Module) -> AdamW:
    """Gains, biases and other vectors are not decayed (GPT-2, BERT)."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=spec.betas, eps=spec.eps, fused=True)


@torch.no_grad()
def clip(model: nn.Module, most: float | None) -> float:
    """The norm of all gradients together, which is cut to `most`."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if most is not None:
        torch.nn.utils.clip_grads_with_norm_(list(model.parameters()), most, norm)
    return float(norm)
