"""Sigmoid scores and a bias that only chooses (Wang et al. 2024; DeepSeek-V3, Liu et al. 2024).

s = sigmoid(W x);  experts are chosen by s + b and weighed by s
groups: of equal size, each as good as its two best experts; a token takes from the best groups alone
b_e moves against sign(load_e - mean load), which balances the experts and pulls at no other weight. Here that sign is
the gradient of b, by a loss that is always 0: whatever trains the model takes the step.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Context
from anyformer.core.fills import zeros
from anyformer.core.spec import NotNegative, Site, Size, spec
from anyformer.feedforward.routers.base import Router, RouterSpec


@spec
class SigmoidRouter(RouterSpec):
    """A sigmoid for each expert, and a bias that only chooses (Wang et al. 2024, DeepSeek-V3).

    groups: how many the experts fall into. best: from how many of them a token takes. rate: of the bias, as a gradient:
    SGD moves it by this times its own rate, Adam by its own rate whatever this is; 0 leaves it as it was loaded.
    """

    groups: Size = 1
    best: Size = 1
    rate: NotNegative = 0.001

    def make(self, at: Site, count: int, top: int) -> SigmoidRouterPart:
        return SigmoidRouterPart(self, at, count, top)


class SigmoidRouterPart(Router):
    """weight: (E, C); correction: (E,), the bias."""

    weight: Tensor
    correction: Tensor

    def __init__(self, spec: SigmoidRouter, at: Site, count: int, top: int) -> None:
        super().__init__(at)
        if spec.best > spec.groups:
            raise ValueError(f"{at.path}: best ({spec.best}) must be at most groups ({spec.groups})")
        if spec.groups > 1 and (count % spec.groups or count // spec.groups < 2):
            raise ValueError(
                f"{at.path}: groups ({spec.groups}) must cut {count} experts into equal groups of 2 or more"
            )
        if top > (open_to := count // spec.groups * spec.best):
            raise ValueError(f"{at.path}: a token takes {top} experts, and its best groups have only {open_to}")
        self.groups, self.best, self.rate = spec.groups, spec.best, spec.rate
        sizes = {"E": count, "C": at.width}
        self.param("weight", ("E", "C"), sizes, at.initial.fill(count, at.width, 1))
        self.param("correction", ("E",), sizes, zeros)

    def forward(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)  # sigmoids of large logits lie close together
        return F.linear(x.to(exact), self.weight.to(exact))

    def scores(self, logits: Tensor) -> Tensor:
        return F.logsigmoid(logits)

    def ranks(self, scores: Tensor) -> Tensor:
        liked = scores.exp() + self.correction
        if self.groups == 1:
            return liked
        grouped = liked.unflatten(-1, (self.groups, -1))  # (B, T, N, E/N)
        worth = grouped.topk(2).values.sum(-1)  # (B, T, N)
        closed = torch.ones_like(worth, dtype=torch.bool).scatter(-1, worth.topk(self.best).indices, False)
        return grouped.masked_fill(closed[..., None], -inf).flatten(-2)

    def lose(self, counts: Tensor, ctx: Context) -> None:
        if self.rate:
            load = counts.to(self.correction)
            pull = self.rate * (self.correction * (load - load.mean()).sign()).sum()
            ctx.lose(self.path, "load", pull - pull.detach())
