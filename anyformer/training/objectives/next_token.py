"""Next token (Phuong & Hutter 2022, algorithm 13): -log of each token's probability given those before it.

Where the model tells documents apart, a document's first token is not predicted from the one before it.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from anyformer.core.errors import ConfigError
from anyformer.core.spec import spec
from anyformer.training.objectives.base import IGNORED, Batch, token_marks
from anyformer.training.objectives.inputs import given
from anyformer.training.objectives.streams import StreamObjective, Window, check_words
from anyformer.training.scores import per_token

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.token_file import TokenFile
    from anyformer.training.objectives.base import Figure, Tensors


@spec
class NextToken(StreamObjective):
    """Every token from those before it (Phuong & Hutter 2022)."""

    def check(self, model: Model) -> None:
        check_writer(model, "next_token")

    def arranged(self, window: Window, corpus: Corpus[TokenFile], model: Model, dice: np.random.Generator) -> Batch:
        targets = window.ids[:, 1:].copy()
        targets[~window.real] = IGNORED
        arrays = {"ids": window.ids[:, :-1], "targets": targets}
        if "document" in model.labels:
            assert window.documents is not None
            targets[window.documents[:, 1:] != window.documents[:, :-1]] = IGNORED
            arrays["document"] = window.documents[:, :-1]
        return Batch.of(arrays, int(window.lengths.sum()), int((targets != IGNORED).sum()))

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        return token_losses(model, tensors, checkpoint, tape).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        return token_marks(token_losses(model, tensors), tensors)

    def figures(self, corpus: Corpus[TokenFile]) -> dict[str, Figure]:
        bits = 1 / (log(2) * corpus.held_out.bytes / (len(corpus.held_out) - 1))  # a nat a token, in bits a byte
        return per_token() | {"bits_per_byte": lambda sums: sums["nats"] / sums["tokens"] * bits}


def check_writer(model: Model, objective: str) -> None:
    """Refuse a model that does not say each token from those before it alone."""
    check_words(model, objective)
    try:
        model.init_state(1)  # what lets tokens see later ones cannot be cut into calls, and says so
    except ValueError as error:
        raise ConfigError(f"{objective} predicts each token from those before it; {error}") from None


def token_losses(model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
    """(B, T): nats, 0 where nothing is predicted."""
    return model.losses(tensors["ids"], tensors["targets"], checkpoint=checkpoint, tape=tape, **given(model, tensors))
