"""Direct Preference Optimization (Rafailov et al. 2023, equation 7): of two answers, the better becomes the likelier.

loss = -log sigmoid(b [(log p(c|x) - log p(r|x)) - (log p_0(c|x) - log p_0(r|x))]), x the prompt, c the chosen and r the
rejected answer, p_0 the model as it was when training began. The bracket is the margin, 0 at the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.spec import Fraction, Positive, spec
from anyformer.data.base import Row
from anyformer.data.examples import padded
from anyformer.training.objectives.base import IGNORED, Coder, Guide
from anyformer.training.objectives.inputs import after_prompt, given
from anyformer.training.objectives.next_token import check_writer
from anyformer.training.objectives.rows import Arrays, RowObjective, TooLong, text_of
from anyformer.training.objectives.seq2seq import ends

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.examples import Example, Examples
    from anyformer.training.objectives.base import Figure, Tensors

SIDES = ("chosen", "rejected")


@spec
class Preferences(RowObjective):
    """The column `chosen` rather than `rejected`, after the prompt `source` (DPO, Rafailov et al. 2023).

    beta: how strongly the model is held where it began. smoothing: the chance that a row has its answers the wrong way
    round (Mitchell 2023, conservative DPO).
    """

    asks: ClassVar[str] = "source"
    texts: ClassVar[tuple[str, ...]] = ("source", *SIDES)
    questions: ClassVar[tuple[str, ...]] = ("prompt",)
    answers: ClassVar[tuple[str, ...]] = SIDES
    sequences: ClassVar[tuple[str, ...]] = SIDES

    beta: Positive = 0.1
    smoothing: Fraction = 0.0
    too_long: TooLong = "refuse"

    @property
    def guide(self) -> Guide:
        return Guide(None, measures=True)

    def question(self, row: Row, coder: Coder) -> Example:
        return {"prompt": np.array(coder.tokenizers.target.begun(text_of(row, "source")))}

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        tokenizer = coder.tokenizers.target
        _, last = ends(tokenizer)
        chosen, rejected = (tokenizer.encode(text_of(row, side)) for side in SIDES)
        if chosen == rejected:
            raise InputError("the columns 'chosen' and 'rejected' are the same tokens, so neither is the better")
        return {
            side: np.array([*question["prompt"], *ids, last])
            for side, ids in zip(SIDES, (chosen, rejected), strict=True)
        }

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        return {}  # all of a row is answer: what is compared is known

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        wholes = [examples.columns[side][int(row)][: length + 1] for row in rows for side in SIDES]
        whole = padded(wholes, IGNORED)[0].reshape(len(rows), len(SIDES), -1)  # (B, 2, T + 1)
        return after_prompt(whole, examples.lengths("prompt", rows)[:, None, None]), len(rows)

    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        raise ConfigError("a model of preferences goes on with texts, which `generate` writes")

    def check(self, model: Model) -> None:
        check_writer(model, "preferences")

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        return _nats(self.beta * self._margins(model, tensors, checkpoint, tape), self.smoothing).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        margins = self._margins(model, tensors).double()
        nats, one = _nats(self.beta * margins, 0.0), margins.new_ones(len(margins))
        return {"nats": nats, "right": margins > 0, "margin": margins, "rows": one}

    def figures(self, corpus: Corpus[Examples]) -> dict[str, Figure]:
        """accuracy: where the chosen answer has gained on the rejected one. margin: by how many nats, on average."""
        return {
            "loss": lambda sums: sums["nats"] / sums["rows"],
            "accuracy": lambda sums: sums["right"] / sums["rows"],
            "margin": lambda sums: sums["margin"] / sums["rows"],
        }

    def _margins(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        """(B,): how much likelier the chosen answer has become, in nats, than the rejected one has."""
        import torch

        (first,) = model.guide
        with torch.no_grad():
            before = _lead(first, tensors)
        return _lead(model, tensors, checkpoint, tape) - before


def _lead(model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
    """(B,): log p(c|x) - log p(r|x)."""
    flat = {name: tensor.flatten(0, 1) for name, tensor in tensors.items()}
    nats = model.losses(flat["ids"], flat["targets"], checkpoint=checkpoint, tape=tape, **given(model, flat))
    chosen, rejected = nats.view_as(tensors["targets"]).sum(-1).unbind(1)
    return rejected - chosen


def _nats(margins: Tensor, smoothing: float) -> Tensor:
    """-log sigmoid of margins, which are the wrong way round with the chance `smoothing`."""
    from torch.nn.functional import softplus

    return (1 - smoothing) * softplus(-margins) + smoothing * softplus(margins)
