"""Reading: how a text is read so that each of its tokens is scored, once, document by document.

loss = -(1 / N) sum_t log p(x_t | what it is read with), perplexity = e^loss, and bits per byte = sum_t nats / (log 2 *
bytes of the text), which does not depend on what a tokenizer calls a token. What is resampled for the intervals are the
documents, and of longer ones blocks as long as what the model reads at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice, pairwise
from math import log
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.model import Model
from anyformer.data.corpus import Corpus
from anyformer.data.token_file import TokenFile
from anyformer.data.tokenizer import TextTokenizer
from anyformer.training.objectives.streams import longest_of
from anyformer.training.scores import Result, per_token, scored

if TYPE_CHECKING:
    from anyformer.recipes.schema import Training
    from anyformer.training.objectives.base import Figure

Scores = Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]  # batches of places in a text, and the nats there


class Reading(ABC):
    """A way to read. Its tokens are those of the file, so documents stand between begin and end tokens, if any."""

    @abstractmethod
    def size(self, training: Training) -> int:
        """How many tokens the model reads at once."""

    @abstractmethod
    def check(self, model: Model, tokenizer: TextTokenizer) -> None:
        """Refuse a model that cannot read this way (ConfigError)."""

    @abstractmethod
    def scores(self, model: Model, text: TokenFile, tokenizer: TextTokenizer, training: Training) -> Scores:
        """Batch after batch: where its tokens stand in the text, and their nats; no place comes twice."""

    def figures(self, text: TokenFile, tokenizer: TextTokenizer) -> dict[str, Figure]:
        """What follows from the sums of nats and tokens."""
        begins = 0 if tokenizer.begin is None else len(text.starts)  # which are no part of the text
        bits = (len(text) - begins) / (log(2) * text.bytes)  # a nat a token, in bits a byte
        return per_token() | {"bits_per_byte": lambda sums: sums["nats"] / sums["tokens"] * bits}


@torch.no_grad()
def read_through(
    reading: Reading, model: Model, corpus: Corpus[TokenFile], training: Training, batches: int | None = None
) -> Result:
    """What a model is worth on the held-out side, read this way, or on its first `batches` batches."""
    text, tokenizer = corpus.held_out, corpus.tokenizer
    reading.check(model, tokenizer)
    nats, asked = np.zeros(len(text)), np.zeros(len(text), dtype=bool)
    was_training = model.training
    model.eval()
    for places, found in islice(reading.scores(model, text, tokenizer, training), batches):
        nats[places], asked[places] = found, True
    model.train(was_training)
    if not asked.any():
        raise InputError(
            f"no document has 2 tokens, of which one could be told from the other: the text has {len(text)} in all"
        )
    places = np.flatnonzero(asked)
    documents = text.documents(places)
    units = np.stack([documents, (places - text.starts[documents]) // reading.size(training)])
    starts = np.flatnonzero(np.r_[True, (np.diff(units) != 0).any(0)])
    marks = {"nats": np.add.reduceat(nats[places], starts), "tokens": np.diff(np.r_[starts, len(places)])}
    result = scored(marks, reading.figures(text, tokenizer))
    result.counts["documents"] = len(np.unique(documents))
    if batches is None:
        result.counts["bytes"] = text.bytes
    return result


def documents_of(text: TokenFile) -> list[tuple[int, int]]:
    """Where each document begins and ends."""
    return [*pairwise([*text.starts.tolist(), len(text)])]


def refuse_wide(window: int, model: Model) -> None:
    """Refuse more tokens at once than a model can tell apart."""
    longest = longest_of(model)
    if longest is not None and window > longest:
        raise ConfigError(f"a window of {window} tokens is too wide: the model's positions tell {longest} apart")
