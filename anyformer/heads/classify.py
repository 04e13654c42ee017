"""Classes of whole texts (Devlin et al. 2019, section 3.2): logits = W p + b of a pooled vector p."""

from __future__ import annotations

from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.spec import Site, spec
from anyformer.heads.base import Labels, count, nats
from anyformer.heads.pooling import PooledHead, PooledSpec


@spec
class Classify(PooledSpec):
    """A class for each text (Devlin et al. 2019).

    labels: the names of the classes; None lets training set them from the data.
    """

    labels: Labels | None = None

    @classmethod
    def examples(cls) -> tuple[Classify, ...]:
        labels = ("no", "yes", "perhaps")
        return cls(labels=labels, hidden=True), cls(labels=labels, pool="max")

    def build(self, at: Site) -> ClassifyHead:
        return ClassifyHead(self, at, count(self.labels, at))


class ClassifyHead(PooledHead):
    """A logit for each class."""

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        return nats(self(h, where), targets, smoothing)
