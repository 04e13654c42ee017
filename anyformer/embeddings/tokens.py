"""A learned vector per token of the vocabulary (Phuong & Hutter 2022, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import normal
from anyformer.core.layer import Part
from anyformer.core.spec import EmbeddingSpec, Fraction, Positive, Site, spec


@spec
class Tokens(EmbeddingSpec):
    """A learned vector per token.

    scale: what vectors are multiplied by (Vaswani et al. 2017: sqrt of the width). std: of the initial weights.
    token_dropout: how many tokens are left out of a text in training, their vectors made zero (Iyyer et al. 2015).
    """

    scale: Positive = 1.0
    std: Positive = 0.02
    token_dropout: Fraction = 0.0

    def build(self, at: Site) -> TokenEmbedding:
        return TokenEmbedding(self, at)


class TokenEmbedding(Part):
    """weight: (V, C)."""

    weight: Tensor

    def __init__(self, spec: Tokens, at: Site) -> None:
        super().__init__(at)
        if at.vocabulary is None:
            raise ValueError(f"{at.path}: the model's vocabulary is not set; training sets it from the tokenizer")
        self.scale, self.token_dropout = spec.scale, spec.token_dropout
        self.param("weight", ("V", "C"), {"V": at.vocabulary, "C": at.width}, normal(spec.std))

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)."""
        x = F.embedding(ids, self.weight) * self.scale
        if not (self.training and self.token_dropout):
            return x
        return x * torch.rand(ids.shape, device=ids.device).ge(self.token_dropout)[..., None]
