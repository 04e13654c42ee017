"""A softmax over all experts (Shazeer et al. 2017): l = W x + b, s = softmax(l), the largest are chosen."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Context
from anyformer.core.fills import zeros
from anyformer.core.spec import Site, spec
from anyformer.feedforward.routers.base import Router, RouterSpec


@spec
class SoftmaxRouter(RouterSpec):
    """A softmax over all experts (Shazeer et al. 2017; Mixtral, Qwen 3).

    bias: one for every logit (GPT-OSS).
    """

    bias: bool = False

    def make(self, at: Site, count: int, top: int) -> SoftmaxRouterPart:
        return SoftmaxRouterPart(self, at, count)


class SoftmaxRouterPart(Router):
    """weight: (E, C); bias: (E,) or None."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, spec: SoftmaxRouter, at: Site, count: int) -> None:
        super().__init__(at)
        sizes = {"E": count, "C": at.width}
        self.param("weight", ("E", "C"), sizes, at.initial.fill(count, at.width, 1))
        if spec.bias:
            self.param("bias", ("E",), sizes, zeros)
        else:
            self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        logits = F.linear(x, self.weight, self.bias)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def scores(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)

    def ranks(self, scores: Tensor) -> Tensor:
        return scores

    def lose(self, counts: Tensor, ctx: Context) -> None:
        """Nothing beside the losses that all routers have."""
