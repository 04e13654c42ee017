"""Classification: -log of the probability of each text's class, or of a pair's, as BERT is fine-tuned (Devlin 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.spec import Fraction, ModelSpec, spec
from anyformer.data.base import Row, column
from anyformer.training.objectives.base import Coder
from anyformer.training.objectives.inputs import given, inputs, text_or_pair
from anyformer.training.objectives.rows import Arrays, RowObjective, TooLong, class_of
from anyformer.training.objectives.streams import with_vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.architectures.decoder import Decoder
    from anyformer.architectures.encoder import Encoder
    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.examples import Example, Examples
    from anyformer.heads.classify import Classify
    from anyformer.heads.tag import Tag
    from anyformer.training.objectives.base import Figure, Tensors


@spec
class Classification(RowObjective):
    """The class of a text (column `text`, classes in `label`), or of a pair (Devlin et al. 2019).

    smoothing: of the labels (Szegedy et al. 2016).
    """

    texts: ClassVar[tuple[str, ...]] = ("text", "pair")
    questions: ClassVar[tuple[str, ...]] = ("ids", "segment")
    answers: ClassVar[tuple[str, ...]] = ("label",)
    sequences: ClassVar[tuple[str, ...]] = ("ids",)

    smoothing: Fraction = 0.0
    too_long: TooLong = "refuse"

    def classes(self, rows: Iterator[Row], model: ModelSpec) -> tuple[str, ...]:
        return self.classes_of(model) or tuple(sorted({column(row, "label") for row in rows}))

    def classes_of(self, model: ModelSpec) -> tuple[str, ...]:
        return labels_of(model)

    def question(self, row: Row, coder: Coder) -> Example:
        return text_or_pair(row, coder.tokenizers.target)

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        return {"label": np.array([class_of(column(row, "label"), coder.classes)])}

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        return inputs(examples, rows, length)

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        return {"label": examples.padded("label", rows, 0)[:, 0]}, len(rows)

    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        probabilities = model(tensors["ids"], **given(model, tensors)).double().softmax(-1)
        best = probabilities.max(-1)
        return [
            {"label": coder.classes[label], "probability": probability}
            for label, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def completed(self, model: ModelSpec, corpus: Corpus[Examples]) -> ModelSpec:
        from anyformer.heads.classify import Classify

        return with_vocabulary(with_labels(model, corpus.classes, Classify), corpus.tokenizer.vocabulary)

    def check(self, model: Model) -> None:
        pass  # `completed` has seen the head

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        said = given(model, tensors)
        return model.losses(
            tensors["ids"], tensors["label"], smoothing=self.smoothing, checkpoint=checkpoint, tape=tape, **said
        ).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        logits, label = model(tensors["ids"], **given(model, tensors)).double(), tensors["label"]
        nats = -logits.log_softmax(-1).gather(1, label[:, None])[:, 0]
        return {"nats": nats, "right": logits.argmax(-1) == label, "rows": label.new_ones(len(label))}

    def figures(self, corpus: Corpus[Examples]) -> dict[str, Figure]:
        return {
            "loss": lambda sums: sums["nats"] / sums["rows"],
            "accuracy": lambda sums: sums["right"] / sums["rows"],
        }


def labels_of(model: ModelSpec) -> tuple[str, ...]:
    """The names of the classes that the declaration's head gives, () where they are not known."""
    from anyformer.heads.classify import Classify
    from anyformer.heads.tag import Tag

    head = _headed(model).head
    return (head.labels or ()) if isinstance(head, Classify | Tag) else ()


def with_labels(model: ModelSpec, classes: tuple[str, ...], kind: type[Classify] | type[Tag]) -> ModelSpec:
    """The declaration whose head, of this kind, knows its classes."""
    model = _headed(model)
    head = model.head
    if not isinstance(head, kind):
        raise ConfigError(f"this objective needs a model with the head {kind.__name__.lower()}; its head is {head}")
    if len(classes) < 2:
        raise InputError(f"all rows have the same label, {', '.join(classes)}: at least two classes are needed")
    return replace(model, head=replace(head, labels=classes))


def _headed(model: ModelSpec) -> Encoder | Decoder:
    from anyformer.architectures.decoder import Decoder
    from anyformer.architectures.encoder import Encoder

    if not isinstance(model, Encoder | Decoder):
        raise ConfigError(f"classes are told by a model of the kind encoder or decoder, not {type(model).__name__}")
    return model
