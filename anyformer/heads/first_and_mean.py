"""DINOv2's linear classifier (Oquab et al. 2024): logits = W [h_0; mean_t>0 h_t] + b, h_0 being the class token's."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.linear import Linear
from anyformer.core.spec import HeadSpec, Site, spec
from anyformer.heads.base import Labels, count, nats
from anyformer.heads.pooling import WHOLE, at_time, refuse_packed


@spec
class FirstAndMean(HeadSpec):
    """A class for each input, from its first token and the mean of the others (Oquab et al. 2024).

    labels: the names of the classes; None lets training set them from the data.
    """

    EXEMPT: ClassVar = WHOLE

    labels: Labels | None = None

    @classmethod
    def examples(cls) -> tuple[FirstAndMean, ...]:
        return (cls(labels=("no", "yes", "perhaps")),)

    def build(self, at: Site) -> FirstAndMeanHead:
        return FirstAndMeanHead(self, at)


class FirstAndMeanHead(Head):
    """out: (K, 2 C)."""

    pools = True

    def __init__(self, spec: FirstAndMean, at: Site) -> None:
        super().__init__(at)
        refuse_packed(at)
        self.out = Linear(at.at("out"), "K", "P", {"K": count(spec.labels, at), "P": 2 * at.width}, bias=True)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> logits (B, K)."""
        others = (where.time > 0)[..., None]
        mean = h.masked_fill(~others, 0).sum(1) / others.sum(1).clamp(min=1)  # (B, C)
        return self.out(torch.cat([at_time(h, where, 0), mean], 1))

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        return nats(self(h, where), targets, smoothing)
