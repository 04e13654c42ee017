"""The span of a text that answers a question (Devlin et al. 2019, section 4.2): where it starts and where it ends.

P(start = t) = softmax_t(w_s . h_t + b_s) over the row's real tokens; the end alike.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.head import IGNORED, Head
from anyformer.core.linear import Linear
from anyformer.core.spec import HeadSpec, Site, spec
from anyformer.heads.pooling import WHOLE, refuse_packed


@spec
class Span(HeadSpec):
    """Where an answer starts and ends in a text (Devlin et al. 2019)."""

    EXEMPT: ClassVar = {"packed": WHOLE["packed"]}

    bias: bool = True

    def build(self, at: Site) -> SpanHead:
        return SpanHead(self, at)


class SpanHead(Head):
    """out: (2, C)."""

    def __init__(self, spec: Span, at: Site) -> None:
        super().__init__(at)
        refuse_packed(at)
        self.out = Linear(at.at("out"), "E", "C", {"E": 2, "C": at.width}, spec.bias)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> logits (B, T, 2) of a start and of an end there."""
        return self.out(h)

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        """(B,) of targets (B, 2), places in the row: the mean of both; what is -100 has no loss."""
        if targets.shape != (h.shape[0], 2):
            raise ValueError(f"{self.path}: targets must be {(h.shape[0], 2)}; came {tuple(targets.shape)}")
        logits, real = self(h, where), where.real[..., None]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        nats = -logits.masked_fill(~real, torch.finfo(logits.dtype).min).log_softmax(1)  # (B, T, 2)
        said = nats.gather(1, targets.clamp(min=0)[:, None])[:, 0]
        every = nats.masked_fill(~real, 0).sum(1) / real.sum(1).clamp(min=1)
        return ((1 - smoothing) * said + smoothing * every).masked_fill(targets == IGNORED, 0).mean(1)
