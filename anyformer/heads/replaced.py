"""ELECTRA's discriminator (Clark et al. 2020): which tokens were replaced, p_t = sigmoid(w . a(W h_t + b) + c)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.linear import Linear
from anyformer.core.spec import HeadSpec, Site, spec
from anyformer.feedforward.activations import FUNCTIONS, Activation
from anyformer.heads.base import nats


@spec
class Replaced(HeadSpec):
    """Whether each token stands in another's place (ELECTRA, Clark et al. 2020)."""

    activation: Activation = "gelu"

    def build(self, at: Site) -> ReplacedHead:
        return ReplacedHead(self, at)


class ReplacedHead(Head):
    """dense: (C, C), then out: (1, C)."""

    def __init__(self, spec: Replaced, at: Site) -> None:
        super().__init__(at)
        self.activation = FUNCTIONS[spec.activation]
        self.dense = Linear(at.at("dense"), "C", "C", {"C": at.width}, bias=True)
        self.out = Linear(at.at("out"), "E", "C", {"E": 1, "C": at.width}, bias=True)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> logits (B, T, 1)."""
        return self.out(self.activation(self.dense(h)))

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        """(B, T) of targets (B, T), 1 for a token that was replaced, 0 for others."""
        both = F.pad(self(h, where), (1, 0))  # a logistic is the softmax of 0 and the logit
        return nats(both.flatten(0, 1), targets.flatten(), smoothing).view_as(targets)
