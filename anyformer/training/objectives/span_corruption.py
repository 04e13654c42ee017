"""Span corruption (T5; Raffel et al. 2020, section 3.3.4): an encoder reads a text with gaps, a decoder fills them.

Each span that is left out is replaced by a sentinel, a token of its own; the target is each sentinel and what it stands
for. Of a text of n tokens round(share n) are left out, in round(share n / mean) spans, of random lengths and at random
distances. Sentinel k is the id vocabulary - 1 - k. The end token follows both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyformer.core.spec import Fraction, ModelSpec, Positive, Size, spec
from anyformer.data.examples import padded
from anyformer.training.objectives.base import IGNORED, Batch, token_marks
from anyformer.training.objectives.next_token import check_writer
from anyformer.training.objectives.seq2seq import check_reader, ends, token_losses
from anyformer.training.objectives.streams import StreamObjective, Window, with_vocabulary
from anyformer.training.scores import per_token

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.token_file import TokenFile
    from anyformer.training.objectives.base import Figure, Tensors

Array = NDArray[Any]


@spec
class SpanCorruption(StreamObjective):
    """Spans that were left out of a text, by an encoder and a decoder (Raffel et al. 2020).

    share: of the tokens that are left out. mean: length of a span. sentinels: ids added to the tokenizer's.
    """

    share: Fraction = 0.15
    mean: Positive = 3.0
    sentinels: Size = 100

    def completed(self, model: ModelSpec, corpus: Corpus[TokenFile]) -> ModelSpec:
        check_reader(model, "span_corruption")
        ends(corpus.tokenizer)  # refuses one that has none
        return with_vocabulary(model, corpus.tokenizer.vocabulary + self.sentinels, "the tokenizer's and the sentinels")

    def check(self, model: Model) -> None:
        check_writer(model, "span_corruption")

    def longest(self, length: int) -> int:
        hidden, count = sizes(length, self.share, self.mean, self.sentinels)
        return max(length - hidden, hidden) + count + 1

    def arranged(self, window: Window, corpus: Corpus[TokenFile], model: Model, dice: np.random.Generator) -> Batch:
        assert model.spec.vocabulary is not None
        first, last = ends(corpus.tokenizer)
        sources, targets = [], []
        for row, size in zip(window.ids, window.lengths, strict=True):
            hidden = spans(int(size), self.share, self.mean, self.sentinels, dice)
            text = row[:size]
            sources.append([*_shortened(text, hidden, model.spec.vocabulary), last])
            targets.append([first, *_shortened(text, ~hidden, model.spec.vocabulary), last])
        source, source_lengths = padded(sources, 0)
        target, lengths = padded(targets, IGNORED)
        arrays = {"source": source, "source_lengths": source_lengths}
        arrays |= {"ids": target[:, :-1].clip(min=0), "targets": target[:, 1:]}
        return Batch.of(arrays, int(source_lengths.sum() + lengths.sum()), int((lengths - 1).sum()))

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        return token_losses(model, tensors, 0.0, checkpoint, tape).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        return token_marks(token_losses(model, tensors), tensors)

    def figures(self, corpus: Corpus[TokenFile]) -> dict[str, Figure]:
        return per_token()


def sizes(length: int, share: float, mean: float, most: int) -> tuple[int, int]:
    """How many of at least 2 tokens are left out, and in how many spans."""
    hidden = min(max(round(length * share), 1), length - 1)
    return hidden, min(max(round(hidden / mean), 1), hidden, length - hidden, most)


def spans(length: int, share: float, mean: float, most: int, dice: np.random.Generator) -> Array:
    """(length,): which tokens are left out. The first one stays, so that each span has a text before it."""
    if length < 2:
        return np.zeros(length, dtype=bool)
    hidden, count = sizes(length, share, mean, most)
    parts = np.stack([_parts(length - hidden, count, dice), _parts(hidden, count, dice)], 1).flatten()
    return np.repeat(np.arange(2 * count) % 2 == 1, parts)


def _parts(total: int, count: int, dice: np.random.Generator) -> Array:
    """`count` whole numbers from 1 that add up to `total`, every such list as likely as any other."""
    borders = np.sort(dice.permutation(total - 1)[: count - 1]) + 1
    return np.diff([0, *borders, total])


def _shortened(text: Array, hidden: Array, vocabulary: int) -> list[int]:
    """The text with each hidden span replaced by its sentinel."""
    starts = hidden & ~np.concatenate([[False], hidden[:-1]])
    sentinel = vocabulary - np.cumsum(starts)
    return np.where(starts, sentinel, text)[starts | ~hidden].tolist()
