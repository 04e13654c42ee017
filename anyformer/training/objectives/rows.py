"""What objectives on rows share: each row of the data is one example, batches are rows of about equal lengths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.explain import came
from anyformer.core.spec import DataSpec, ModelSpec
from anyformer.data.base import Row, column
from anyformer.training.objectives.base import Batch, Coder, Feed, Objective, placed, tensors_of
from anyformer.training.objectives.streams import listed, longest_of, refuse_longer, with_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from anyformer.core.model import Model
    from anyformer.data.buckets import Buckets
    from anyformer.data.corpus import Corpus, Tokenizers
    from anyformer.data.examples import Example, Examples
    from anyformer.data.sides import Side
    from anyformer.recipes.schema import Training
    from anyformer.training.objectives.base import Tensors

Arrays = dict[str, NDArray[Any]]
TooLong = Literal["refuse", "cut"]
HELD_OUT = " of the held-out rows"


class RowObjective(Objective["Examples"], ABC):
    """The corpus is two sets of Examples, each a question and its answer.

    texts: the columns that tokenizers learn from. questions, answers: the names of an example's arrays. sequences:
    those of them whose lengths count. least: rows that a batch needs. too_long: what becomes of a sequence longer than
    training.length or the model's positions.
    """

    texts: ClassVar[tuple[str, ...]]
    questions: ClassVar[tuple[str, ...]]
    answers: ClassVar[tuple[str, ...]]
    sequences: ClassVar[tuple[str, ...]]
    least: ClassVar[int] = 1
    too_long: TooLong

    @abstractmethod
    def question(self, row: Row, coder: Coder) -> Example:
        """What a row asks; InputError says what is wrong with it, the row's number left out."""

    @abstractmethod
    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        """What is to be said, for training."""

    @abstractmethod
    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        """What the model is given of some rows. length: what longer sequences are cut to."""

    @abstractmethod
    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        """What it is to say of them, and of how many things the loss is the mean."""

    @abstractmethod
    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        """What it says, in words. tensors: what was `asked` of these rows."""

    def arranged(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Batch:
        """Some rows as a batch."""
        arrays, count = self.wanted(examples, rows, length)
        tokens = sum(int(examples.lengths(name, rows).clip(max=length).sum()) for name in self.sequences)
        return Batch.of(self.asked(examples, rows, length) | arrays, tokens, count)

    def predicted(self, model: Model, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        from anyformer.data.examples import Examples

        examples = Examples.of([self.question(row, coder) for row in rows])
        length = longest_of(model) or 2**30
        if self.too_long == "refuse":
            names = [name for name in self.sequences if name in self.questions] or self.questions
            refuse_longer(int(self._lengths(examples, names).max()), model)
        tensors = tensors_of(self.asked(examples, np.arange(len(rows)), length))
        return self.said(model, placed(tensors, next(model.parameters()).device), rows, coder)

    def classes(self, rows: Iterator[Row], model: ModelSpec) -> tuple[str, ...]:
        """The classes that rows belong to; () where there are none."""
        return ()

    def corpus(self, data: DataSpec, seed: int, model: ModelSpec, known: Tokenizers | None = None) -> Corpus[Examples]:
        from anyformer.data.cache import cached, key_of
        from anyformer.data.corpus import Corpus, made_from, text_data, tokenizers_of
        from anyformer.data.examples import Examples, write_examples
        from anyformer.data.sides import sides

        parts = sides(text_data(data), seed)
        tokenizers = tokenizers_of(parts, seed, self.texts, known)
        classes = self.classes(parts.rows("train"), model)
        coder = Coder(tokenizers, classes)

        def examples(side: Side) -> Iterator[tuple[int, Example]]:
            for number, row in enumerate(parts.rows(side), 1):
                size = sum(len(row[name].encode("utf-8", "surrogatepass")) for name in self.texts if name in row)
                try:
                    question = self.question(row, coder)
                    yield size, {**question, **self.answer(row, question, coder)}
                except InputError as error:
                    where = "" if side == "train" else HELD_OUT
                    raise InputError(f"row {number}{where}: {error}") from None

        def write(folder: Path) -> None:
            for side in ("train", "held_out"):
                write_examples(folder, side, self.questions + self.answers, examples(side))

        key = key_of(*made_from(parts, seed), tokenizers.fingerprints, classes, self.to_dict())
        folder = cached("examples", key, write)
        train, held_out = Examples.open(folder, "train"), Examples.open(folder, "held_out")
        fingerprint = key_of(train.fingerprint, held_out.fingerprint, tokenizers.fingerprints, classes)
        return Corpus(train, held_out, tokenizers, fingerprint, classes)

    def completed(self, model: ModelSpec, corpus: Corpus[Examples]) -> ModelSpec:
        return with_vocabulary(model, corpus.tokenizer.vocabulary)

    def feed(self, corpus: Corpus[Examples], model: Model, training: Training, seed: int) -> Feed:
        from anyformer.data.buckets import Buckets

        length = self._longest(model, training)
        self._check_lengths(corpus.train, length, "")
        self._check_lengths(corpus.held_out, length, HELD_OUT)
        sizes = np.minimum(self._sizes(corpus.train), length * len(self.sequences))
        arranged = partial(self.arranged, corpus.train, length=length)
        buckets = Buckets(sizes, training.batch, seed)
        if buckets.size < self.least:
            raise ConfigError(
                f"a batch of {buckets.size} is too small: the rows of a batch are compared with each other; give"
                f" training.batch and the training rows at least {self.least}"
            )
        return Rows(arranged, buckets)

    def exam(self, corpus: Corpus[Examples], model: Model, training: Training, most: int | None) -> Iterator[Batch]:
        examples, length = corpus.held_out, self._longest(model, training)
        if not len(examples):
            raise InputError(
                "no row is held out, so nothing can be measured: raise data.held_out, name a data.validation_path, or"
                " give --data"
            )
        self._check_lengths(examples, length, HELD_OUT)
        rows = np.arange(len(examples) if most is None else min(len(examples), most * training.batch))
        rows = rows[np.argsort(self._sizes(examples)[rows], kind="stable")]
        for first in range(0, len(rows), training.batch):
            yield self.arranged(examples, rows[first : first + training.batch], length)

    def _longest(self, model: Model, training: Training) -> int:
        return min(training.length, longest_of(model) or training.length)

    def _sizes(self, examples: Examples) -> NDArray[np.int64]:
        """(rows,): what rows are sorted by."""
        return np.sum([examples.columns[name].lengths for name in self.sequences], axis=0)

    def _lengths(self, examples: Examples, names: Sequence[str]) -> NDArray[np.int64]:
        """(rows,): of the longest of some sequences."""
        return np.max([examples.columns[name].lengths for name in names], axis=0)

    def _check_lengths(self, examples: Examples, length: int, side: str) -> None:
        lengths = self._lengths(examples, self.sequences)
        if self.too_long == "cut" or lengths.max(initial=0) <= length:
            return
        row, count = int(lengths.argmax()), int((lengths > length).sum())
        raise InputError(
            f"row {row + 1}{side} has {lengths[row]} tokens; training.length or the model's positions allow {length},"
            f" and {count} of the rows{side} have more: raise them, or say --set objective.too_long=cut"
        )


@dataclass(frozen=True)
class Rows(Feed):
    """Rows in buckets."""

    arranged: Callable[[NDArray[np.int64]], Batch]
    buckets: Buckets

    @property
    def tokens(self) -> float:
        return float(self.buckets.lengths.mean()) * self.buckets.size

    def at(self, number: int) -> Batch:
        return self.arranged(self.buckets.at(number))

    def origin(self, number: int) -> str:
        return listed("rows", self.buckets.at(number) + 1)


def text_of(row: Row, name: str) -> str:
    """A column that has to hold some text."""
    text = column(row, name)
    if not isinstance(text, str):
        raise InputError(f"the column {name!r} should be text; came {came(text)}")
    if not text.strip():
        raise InputError(f"the column {name!r} is empty")
    return text


def class_of(label: str, classes: Sequence[str]) -> int:
    """The number of a label."""
    if label not in classes:
        raise InputError(f"the label {label!r} is not among those of the training rows: {', '.join(classes)}")
    return classes.index(label)
