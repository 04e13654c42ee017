"""Contrastive sentences (multiple negatives; Henderson et al. 2017, SimCSE; Gao et al. 2021).

loss_i = -log softmax_j(cos(a_i, b_j) / tau)_i: each text finds its own pair among those of all rows of the batch. Where
the data has no pairs, a text is its own, made different by dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError
from anyformer.core.spec import Positive, spec
from anyformer.data.base import Row
from anyformer.training.objectives.base import Coder
from anyformer.training.objectives.inputs import given, inputs, marked, padded
from anyformer.training.objectives.rows import Arrays, RowObjective, TooLong, text_of

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.examples import Example, Examples
    from anyformer.training.objectives.base import Figure, Tensors


@spec
class Contrastive(RowObjective):
    """Texts (column `text`) near to what they belong with (`pair`) and far from others (Gao et al. 2021).

    temperature: tau.
    """

    texts: ClassVar[tuple[str, ...]] = ("text", "pair")
    questions: ClassVar[tuple[str, ...]] = ("ids", "segment")
    answers: ClassVar[tuple[str, ...]] = ("pair",)
    sequences: ClassVar[tuple[str, ...]] = ("ids", "pair")
    least: ClassVar[int] = 2

    temperature: Positive = 0.05
    too_long: TooLong = "refuse"

    def question(self, row: Row, coder: Coder) -> Example:
        tokenizer = coder.tokenizers.target
        return marked(tokenizer, [tokenizer.encode(text_of(row, "text"))])

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        tokenizer = coder.tokenizers.target
        other = text_of(row, "pair" if "pair" in row else "text")
        return {"pair": marked(tokenizer, [tokenizer.encode(other)])["ids"]}

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        return inputs(examples, rows, length)

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        pair, lengths = padded(examples, "pair", rows, length)
        return {"pair": pair, "pair_lengths": lengths}, len(rows)

    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        return [{"vector": vector} for vector in model(tensors["ids"], **given(model, tensors)).float().tolist()]

    def check(self, model: Model) -> None:
        from anyformer.heads.sentence import SentenceHead

        if not isinstance(model.head, SentenceHead):
            raise ConfigError("contrastive needs a model with the head sentence")

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        from torch.nn import functional as F

        scores = self._scores(model, tensors, checkpoint, tape)
        return F.cross_entropy(scores, scores.new_tensor(range(len(scores))).long(), reduction="sum")

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        scores = self._scores(model, tensors).double()
        found = scores.argmax(1) == scores.new_tensor(range(len(scores)))
        return {"nats": -scores.log_softmax(1).diagonal(), "found": found, "rows": found.new_ones(len(found))}

    def figures(self, corpus: Corpus[Examples]) -> dict[str, Figure]:
        return {
            "loss": lambda sums: sums["nats"] / sums["rows"],
            "accuracy": lambda sums: sums["found"] / sums["rows"],
        }

    def _scores(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        """(B, B): the cosine of each text and each pair, over tau."""
        import torch
        from torch.nn import functional as F

        said = given(model, tensors)
        texts = model(tensors["ids"], checkpoint=checkpoint, tape=tape, **said)
        pairs = model(tensors["pair"], lengths=tensors["pair_lengths"], checkpoint=checkpoint, tape=tape)
        exact = torch.promote_types(texts.dtype, torch.float32)
        texts, pairs = (F.normalize(vectors.to(exact), dim=-1) for vectors in (texts, pairs))
        return texts @ pairs.T / self.temperature
