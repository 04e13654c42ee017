"""Regression: the squared error of a number that each text, or pair of texts, has (STS-B, as BERT is fine-tuned)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.spec import spec
from anyformer.data.base import Row, column
from anyformer.training.objectives.base import Coder
from anyformer.training.objectives.inputs import given, inputs, text_or_pair
from anyformer.training.objectives.rows import Arrays, RowObjective, TooLong

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.examples import Example, Examples
    from anyformer.training.objectives.base import Array, Figure, Sums, Tensors

LARGEST = float(np.finfo("<f4").max)


@spec
class Regression(RowObjective):
    """A number (column `value`) of a text (column `text`), or of a pair of texts (Devlin et al. 2019)."""

    texts: ClassVar[tuple[str, ...]] = ("text", "pair")
    questions: ClassVar[tuple[str, ...]] = ("ids", "segment")
    answers: ClassVar[tuple[str, ...]] = ("value",)
    sequences: ClassVar[tuple[str, ...]] = ("ids",)

    too_long: TooLong = "refuse"

    def question(self, row: Row, coder: Coder) -> Example:
        return text_or_pair(row, coder.tokenizers.target)

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        # examples hold whole numbers of 32 bits: these are the bits of a float
        return {"value": np.array([number_of(column(row, "value"))], "<f4").view("<i4").astype(np.int64)}

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        return inputs(examples, rows, length)

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        return {"value": examples.padded("value", rows, 0).astype("<i4").view("<f4")}, len(rows)

    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        return [{"value": value} for value in model(tensors["ids"], **given(model, tensors))[:, 0].tolist()]

    def check(self, model: Model) -> None:
        from anyformer.heads.regress import RegressHead

        if not isinstance(model.head, RegressHead) or model.head.out.weight.shape[0] != 1:
            raise ConfigError("regression needs a model with the head regress, and one output")

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        said = given(model, tensors)
        return model.losses(tensors["ids"], tensors["value"], checkpoint=checkpoint, tape=tape, **said).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        import torch

        x = model(tensors["ids"], **given(model, tensors))[:, 0].double()
        y = tensors["value"][:, 0].double()
        moments = torch.stack([x, y, x * x, y * y, x * y], -1)
        return {"squares": (x - y) ** 2, "errors": (x - y).abs(), "moments": moments, "rows": torch.ones_like(x)}

    def figures(self, corpus: Corpus[Examples]) -> dict[str, Figure]:
        return {
            "loss": lambda sums: sums["squares"] / sums["rows"],
            "mean_error": lambda sums: sums["errors"] / sums["rows"],
            "pearson": pearson,
        }


def number_of(text: str) -> float:
    """A number as it is written."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= LARGEST:
        raise InputError(f"the column 'value' holds {text!r}, which is no number of 32 bits")
    return value


def pearson(sums: Sums) -> Array:
    """The correlation, from sums of x, y, x², y², xy; 0 where one of them does not vary."""
    x, y, xx, yy, xy = np.moveaxis(sums["moments"] / sums["rows"][..., None], -1, 0)
    spread = np.sqrt(np.maximum((xx - x**2) * (yy - y**2), 0))
    return np.where(spread > 0, (xy - x * y) / np.maximum(spread, 1e-300), 0.0)
