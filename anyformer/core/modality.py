"""What enters a model and is no token id, such as pixels and sounds: how it becomes vectors, and where they are."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from anyformer.core.layer import Part
from anyformer.core.spec import Site


class Modality(Part, ABC):
    """An embedding of x (B, …). An input comes whole, and every row makes as many vectors."""

    def __init__(self, at: Site) -> None:
        super().__init__(at)
        if "document" in at.labels:
            raise ValueError(
                f"{at.path}: what enters here is one thing a row; take 'document' out of the model's labels"
            )

    @abstractmethod
    def count(self, x: Tensor) -> int:
        """T, how many vectors a row makes, from x's shape alone; ValueError for what cannot enter."""

    @abstractmethod
    def coords(self, x: Tensor) -> Tensor | None:
        """(B, T, R), where they are; None: one after the other."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, …) -> (B, T, C)."""

    @abstractmethod
    def shape(self, tokens: int) -> tuple[int, ...]:
        """Of one row that makes so many vectors, or as many as a usual one does."""

    def seats(self, x: Tensor) -> Tensor:
        """(B, T) zeros that stand where ids would, so that a clock can count them; they take no memory."""
        return torch.zeros((), dtype=torch.long, device=x.device).expand(x.shape[0], self.count(x))


def placed(x: Tensor, embedding: nn.Module, coords: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What a clock counts, (B, T), and its coordinates; what was given of them comes first."""
    if not isinstance(embedding, Modality):
        return x, coords
    return embedding.seats(x), embedding.coords(x) if coords is None else coords
