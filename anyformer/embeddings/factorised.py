"""The factorised embedding (Lan et al. 2020, ALBERT): narrow vectors and one matrix that widens them, x = W_up e."""

from __future__ import annotations

from torch import Tensor, nn

from anyformer.core.layer import Part
from anyformer.core.linear import Linear
from anyformer.core.modality import Modality
from anyformer.core.roles import Embedding
from anyformer.core.spec import EmbeddingSpec, Site, Size, spec
from anyformer.embeddings.tokens import Tokens


@spec
class Factorised(EmbeddingSpec):
    """A narrow embedding, widened by a matrix (Lan et al. 2020).

    inner: the narrow one, such as `given` word vectors. size: its width.
    """

    inner: Embedding = Tokens()
    size: Size

    def build(self, at: Site) -> FactorisedEmbedding:
        return FactorisedEmbedding(self, at)


class FactorisedEmbedding(Part):
    """up: (C, E)."""

    inner: nn.Module

    def __init__(self, spec: Factorised, at: Site) -> None:
        super().__init__(at)
        self.hold(at, "inner", spec.inner, width=spec.size)
        if isinstance(self.inner, Modality):
            raise ValueError(f"{at.path}.inner: a vector per token of the vocabulary, as `tokens` and `given` have")
        self.up = Linear(at.at("up"), "C", "E", {"C": at.width, "E": spec.size})

    @property
    def weight(self) -> Tensor:
        """(V, C): the wide vector of every token, for heads that read the embedding backwards."""
        return self.up(self.inner.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)."""
        return self.up(self.inner(ids))
