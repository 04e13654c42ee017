"""`predict`: what a finished run says of rows that nobody has answered yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from typing_extensions import Unpack

from anyformer.core.errors import InputError
from anyformer.core.model import Model
from anyformer.data.base import Row
from anyformer.models.load import How
from anyformer.training.finished import Finished
from anyformer.training.objectives.base import Coder, Objective

ROWS = 32  # at a time
Answer = dict[str, Any]


def predict(run: str | Path, rows: Iterable[str | Row], **how: Unpack[How]) -> list[Answer]:
    """What the run says of each row, in order, such as {"label": "1", "probability": 0.9}.

    rows: texts, or mappings with the columns of the data that the run was trained on, the answer left out. how: the
    run is opened, as in `load`. InputError: a row cannot be read; it is named by its number.
    """
    if isinstance(rows, str):
        raise ValueError("rows must be a list of texts or of mappings; came one text: put it in a list")
    answers = []
    for number, answer in enumerate(predictor(run, **how).answers(rows), 1):
        if isinstance(answer, InputError):
            raise InputError(f"row {number}: {answer}")
        answers.append(answer)
    return answers


@dataclass(frozen=True)
class Predictor:
    """A loaded run, and what turns rows into its numbers and back."""

    model: Model
    objective: Objective[Any]
    coder: Coder

    @torch.no_grad()
    def answers(self, rows: Iterable[str | Row | InputError]) -> Iterator[Answer | InputError]:
        """An answer for each row, or what is wrong with it; a row that is an error already stays one."""
        left = iter(rows)
        while some := list(islice(left, ROWS)):
            named = [{self.objective.asks: row} if isinstance(row, str) else row for row in some]
            good = [row for row in named if not isinstance(row, InputError)]
            answers = iter(self._together(good))
            yield from (row if isinstance(row, InputError) else next(answers) for row in named)

    def _together(self, rows: Sequence[Row]) -> list[Answer | InputError]:
        """In one batch; one by one where a row is bad, since the others are not."""
        if not rows:
            return []
        try:
            return [*self.objective.predicted(self.model, rows, self.coder)]
        except InputError as error:
            return [error] if len(rows) == 1 else [answer for row in rows for answer in self._together([row])]


def predictor(run: str | Path, **how: Unpack[How]) -> Predictor:
    """The run, loaded."""
    done = Finished.open(run, **how)
    return Predictor(done.model, done.objective, Coder(done.tokenizers, done.objective.classes_of(done.recipe.model)))
