"""Word vectors made elsewhere (word2vec, Mikolov et al. 2013; GloVe, Pennington et al. 2014): x = W[id], W of a file.

The file is read once, before a new model is trained (`anyformer.models.given`); from then on its vectors are weights
like all others, and a run is loaded without it.
"""

from __future__ import annotations

from anyformer.core.spec import EmbeddingSpec, Positive, Site, spec
from anyformer.embeddings.tokens import TokenEmbedding, Tokens


@spec
class Given(EmbeddingSpec):
    """A vector per token, read from a file of word vectors (word2vec, GloVe).

    vectors: the file, as given or below $ANYFORMER_DATA; None: none is read, and the vectors begin as any others. They
    are as wide as the stream; `factorised` widens others. trainable: whether training changes them. scale: what they
    are multiplied by.
    """

    vectors: str | None = None
    trainable: bool = False
    scale: Positive = 1.0

    @classmethod
    def examples(cls) -> tuple[Given, ...]:
        return (cls(vectors="glove.txt", scale=3.0),)

    def build(self, at: Site) -> TokenEmbedding:
        table = TokenEmbedding(Tokens(scale=self.scale), at)
        table.weight.requires_grad_(self.trainable)
        return table
