"""Streaming: every token is scored after all of its document before it, read once from its beginning on a state.

By the law of state this is the window as long as the document, at the cost of one pass; and where a model's past is
bounded, in memory that does not grow with the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from anyformer.core.errors import InputError
from anyformer.core.model import Model
from anyformer.data.token_file import TokenFile
from anyformer.data.tokenizer import TextTokenizer
from anyformer.generation.prompts import padded
from anyformer.heads.base import AT_ONCE
from anyformer.training.objectives.next_token import check_writer
from anyformer.training.objectives.streams import longest_of
from anyformer.training.reading import Reading, Scores, documents_of
from anyformer.training.told import check_teller, head_of, of_logits

if TYPE_CHECKING:
    from anyformer.recipes.schema import Training


@dataclass(frozen=True)
class Streaming(Reading):
    """Whole documents, however long."""

    def size(self, training: Training) -> int:
        return training.length

    def check(self, model: Model, tokenizer: TextTokenizer) -> None:
        check_writer(model, "streaming")
        check_teller(model)

    def scores(self, model: Model, text: TokenFile, tokenizer: TextTokenizer, training: Training) -> Scores:
        documents = [(start, end) for start, end in documents_of(text) if end - start > 1]
        longest, needs = longest_of(model), max((end - start - 1 for start, end in documents), default=0)
        if longest is not None and needs > longest:
            raise InputError(
                f"a document has {needs} tokens to be read, and the model's positions end at {longest}: take a window"
            )
        left = iter(documents)
        while some := list(islice(left, training.batch)):
            yield from self._together(model, text, some, training.length)

    def _together(self, model: Model, text: TokenFile, documents: Sequence[tuple[int, int]], length: int) -> Scores:
        """Documents side by side, some tokens at a time."""
        head, device = head_of(model), next(model.parameters()).device
        ids, real = padded([text.tokens[start : end - 1].tolist() for start, end in documents], "right", device)
        targets, _ = padded([text.tokens[start + 1 : end].tolist() for start, end in documents], "right", device)
        at = torch.tensor([start + 1 for start, _ in documents], device=device)[:, None]
        places = at + torch.arange(ids.shape[1], device=device)
        state = model.init_state(len(documents), capacity=ids.shape[1])
        for part in _parts(ids.shape[1], max(1, min(length, AT_ONCE // (head.size * len(documents))))):
            there = real[:, part]  # what comes after a document changes nothing in it, and is not asked
            logits, state = model(ids[:, part], state)
            found = of_logits(logits[there], targets[:, part][there]).nats
            yield places[:, part][there].cpu().numpy().astype(np.int64), found.double().cpu().numpy()


def _parts(length: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, length, size))
