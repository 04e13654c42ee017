"""A learned vector per position, added to the embeddings (Gehring et al. 2017; BERT, GPT-2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Where
from anyformer.core.fills import normal
from anyformer.core.spec import PositionSpec, Positive, Site, Size, Whole, spec
from anyformer.positions.base import OnEmbeddings, on_a_line


@spec
class Learned(PositionSpec):
    """A learned vector per position (BERT, GPT-2).

    length: positions in the table. first: the row of position 0 (OPT and RoBERTa start at 2). std: of the initial
    weights. trainable: whether training changes them; Whisper's encoder has a fixed table in its files.
    """

    length: Size
    first: Whole = 0
    std: Positive = 0.02
    trainable: bool = True

    def build(self, at: Site) -> LearnedPosition:
        return LearnedPosition(self, at)


class LearnedPosition(OnEmbeddings):
    """weight: (first + length, C)."""

    weight: Tensor

    def __init__(self, spec: Learned, at: Site) -> None:
        super().__init__(at)
        on_a_line(at)
        self.first, self.longest = spec.first, spec.length
        self.param("weight", ("L", "C"), {"L": spec.first + spec.length, "C": at.width}, normal(spec.std))
        self.weight.requires_grad_(spec.trainable)

    def forward(self, x: Tensor, where: Where) -> Tensor:
        return x + F.embedding((where.coords[..., 0] + self.first).clamp(min=0), self.weight)
