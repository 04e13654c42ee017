"""A learned vector per value of a label, added to the embeddings: BERT's token types (Devlin et al. 2019)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Where
from anyformer.core.fills import small
from anyformer.core.spec import PositionSpec, Site, Size, spec
from anyformer.positions.base import OnEmbeddings


@spec
class Segments(PositionSpec):
    """A learned vector per value of a label, which the model declares (Devlin et al. 2019).

    count: of values, 0 to count - 1; a token of which nothing is said has 0.
    """

    label: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "segment"
    count: Size = 2

    @classmethod
    def examples(cls) -> tuple[Segments, ...]:
        return (cls(count=5),)

    def build(self, at: Site) -> SegmentVectors:
        return SegmentVectors(self, at)


class SegmentVectors(OnEmbeddings):
    """weight: (N, C)."""

    weight: Tensor

    def __init__(self, spec: Segments, at: Site) -> None:
        super().__init__(at)
        if spec.label not in at.labels:
            raise ValueError(
                f"{at.path}: reads the label {spec.label!r}; the model declares {sorted(at.labels)}: add it to the "
                "model's labels"
            )
        self.label = spec.label
        self.param("weight", ("N", "C"), {"N": spec.count, "C": at.width}, small)

    def forward(self, x: Tensor, where: Where) -> Tensor:
        value = where.labels[self.label].masked_fill(~where.real, 0)
        self._check(value)
        return x + F.embedding(value, self.weight)

    def _check(self, value: Tensor) -> None:
        """As ids are checked: where that waits for no device."""
        count = self.weight.shape[0]
        if torch.compiler.is_compiling() or value.device.type != "cpu" or not value.numel():
            return
        least, most = value.aminmax()
        if least < 0 or most >= count:
            raise ValueError(
                f"{self.path}: the label {self.label!r} has the values 0 to {count - 1}; came {least} to {most}"
            )
