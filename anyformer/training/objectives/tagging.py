"""Tagging: -log of the probability of each word's class, read at its first token (Devlin et al. 2019, section 5.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import InputError
from anyformer.core.spec import ModelSpec, spec
from anyformer.data.base import Row, column
from anyformer.training.objectives.base import IGNORED, Coder
from anyformer.training.objectives.classification import labels_of, with_labels
from anyformer.training.objectives.inputs import given, inputs, marked
from anyformer.training.objectives.rows import Arrays, RowObjective, TooLong, class_of, text_of
from anyformer.training.objectives.streams import with_vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.examples import Example, Examples
    from anyformer.training.objectives.base import Figure, Tensors


@spec
class Tagging(RowObjective):
    """A class for each word: the columns `text` and `tags` have as many words each (Devlin et al. 2019)."""

    texts: ClassVar[tuple[str, ...]] = ("text",)
    questions: ClassVar[tuple[str, ...]] = ("ids", "segment", "places")
    answers: ClassVar[tuple[str, ...]] = ("tags",)
    sequences: ClassVar[tuple[str, ...]] = ("ids",)

    too_long: TooLong = "refuse"

    def classes(self, rows: Iterator[Row], model: ModelSpec) -> tuple[str, ...]:
        return self.classes_of(model) or tuple(sorted({tag for row in rows for tag in column(row, "tags").split()}))

    def classes_of(self, model: ModelSpec) -> tuple[str, ...]:
        return labels_of(model)

    def question(self, row: Row, coder: Coder) -> Example:
        tokenizer = coder.tokenizers.target
        texts = text_of(row, "text").split()
        words = tokenizer.encode_words(texts)
        if bare := [text for text, word in zip(texts, words, strict=True) if not word]:
            raise InputError(f"the tokenizer keeps nothing of the word {bare[0]!r}: take it out")
        whole = marked(tokenizer, [[token for word in words for token in word]])
        first = 0 if tokenizer.start is None else 1
        return {**whole, "places": first + np.cumsum([0, *map(len, words[:-1])])}

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        tags = column(row, "tags").split()
        if len(tags) != len(question["places"]):
            raise InputError(f"{len(question['places'])} words, but {len(tags)} tags")
        return {"tags": np.array([class_of(tag, coder.classes) for tag in tags])}

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        places = examples.padded("places", rows, -1)
        return inputs(examples, rows, length) | {"places": np.where(places < length, places, -1)}

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        targets = np.full((len(rows), min(int(examples.lengths("ids", rows).max()), length)), IGNORED)
        for at, row in enumerate(rows):
            places, tags = examples.columns["places"][int(row)], examples.columns["tags"][int(row)]
            seen = places < targets.shape[1]
            targets[at, places[seen]] = tags[seen]
        return {"targets": targets}, int((targets != IGNORED).sum())

    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        best, places = model(tensors["ids"], **given(model, tensors)).argmax(-1), tensors["places"]
        tags = [[coder.classes[tag] for tag in row[at[at >= 0]].tolist()] for row, at in zip(best, places, strict=True)]
        return [{"words": row["text"].split()[: len(some)], "tags": some} for row, some in zip(rows, tags, strict=True)]

    def completed(self, model: ModelSpec, corpus: Corpus[Examples]) -> ModelSpec:
        from anyformer.heads.tag import Tag

        return with_vocabulary(with_labels(model, corpus.classes, Tag), corpus.tokenizer.vocabulary)

    def check(self, model: Model) -> None:
        pass  # `completed` has seen the head

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        said = given(model, tensors)
        return model.losses(tensors["ids"], tensors["targets"], checkpoint=checkpoint, tape=tape, **said).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        logits, targets = model(tensors["ids"], **given(model, tensors)).double(), tensors["targets"]
        asked = targets != IGNORED
        nats = -logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0] * asked
        right = (logits.argmax(-1) == targets) & asked
        return {
            "nats": nats.sum(1),
            "right": right.sum(1),
            "words": asked.sum(1),
            "rows": targets.new_ones(len(targets)),
        }

    def figures(self, corpus: Corpus[Examples]) -> dict[str, Figure]:
        return {
            "loss": lambda sums: sums["nats"] / sums["words"],
            "accuracy": lambda sums: sums["right"] / sums["words"],
        }
