"""DeiT's two heads (Touvron et al. 2021): logits = (W h_1 + b + W' h_2 + b') / 2, h_2 the distillation token's."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.linear import Linear
from anyformer.core.spec import HeadSpec, Site, spec
from anyformer.heads.base import Labels, count, nats
from anyformer.heads.pooling import WHOLE, at_time, refuse_packed


@spec
class Distilled(HeadSpec):
    """A class for each input, from two tokens: one learnt from the data, one from a teacher (Touvron et al. 2021).

    labels: the names of the classes; None lets training set them from the data.
    """

    EXEMPT: ClassVar = WHOLE

    labels: Labels | None = None

    @classmethod
    def examples(cls) -> tuple[Distilled, ...]:
        return (cls(labels=("no", "yes", "perhaps")),)

    def build(self, at: Site) -> DistilledHead:
        return DistilledHead(self, at)


class DistilledHead(Head):
    """out: (K, C), of the first token; taught: (K, C), of the second one."""

    pools = True

    def __init__(self, spec: Distilled, at: Site) -> None:
        super().__init__(at)
        refuse_packed(at)
        sizes = {"K": count(spec.labels, at), "C": at.width}
        self.out = Linear(at.at("out"), "K", "C", sizes, bias=True)
        self.taught = Linear(at.at("taught"), "K", "C", sizes, bias=True)

    def both(self, h: Tensor, where: Where) -> tuple[Tensor, Tensor]:
        """(B, T, C) -> the logits of either head, (B, K)."""
        return self.out(at_time(h, where, 0)), self.taught(at_time(h, where, 1))

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> logits (B, K)."""
        out, taught = self.both(h, where)
        return (out + taught) / 2

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        """The mean of both heads' losses; a teacher's classes go to `nats` of what `both` gives."""
        out, taught = self.both(h, where)
        return (nats(out, targets, smoothing) + nats(taught, targets, smoothing)) / 2
