"""Sliding windows (Baevski & Auli 2019, section 4.2): every token is scored with a fixed amount of context, or more.

A window of W tokens moves by S; of each only those tokens are scored that the one before did not have. So each is
scored once, after at least W - S tokens of its document, or after all there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.data.token_file import TokenFile
from anyformer.data.tokenizer import TextTokenizer
from anyformer.training.reading import Reading, Scores, documents_of, refuse_wide
from anyformer.training.told import check_teller, told

if TYPE_CHECKING:
    from anyformer.recipes.schema import Training


@dataclass(frozen=True)
class Sliding(Reading):
    """window: tokens that are seen together, the one that is asked for among them. stride: how far it moves."""

    window: int
    stride: int

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ConfigError(f"a window has at least 2 tokens, one to be told from the other; came {self.window}")
        if not 1 <= self.stride < self.window:
            raise ConfigError(
                f"the stride of a window of {self.window} tokens is from 1 to {self.window - 1}, so that no token is "
                f"left out, or has none before it; came {self.stride}"
            )

    def size(self, training: Training) -> int:
        return self.window

    def check(self, model: Model, tokenizer: TextTokenizer) -> None:
        check_teller(model)
        refuse_wide(self.window, model)

    def scores(self, model: Model, text: TokenFile, tokenizer: TextTokenizer, training: Training) -> Scores:
        left = self.windows(text)
        while some := list(islice(left, training.batch)):
            rows = [(text.tokens[begin:end].tolist(), end - first) for begin, first, end in some]
            places = [np.arange(first, end) for _, first, end in some]
            found = [row.nats.double().cpu().numpy() for row in told(model, rows)]
            yield np.concatenate(places), np.concatenate(found)

    def windows(self, text: TokenFile) -> Iterator[tuple[int, int, int]]:
        """Where each begins, where what it scores begins, and where both end."""
        for start, end in documents_of(text):
            first = start + 1
            for begin in range(start, end, self.stride):
                last = min(begin + self.window, end)
                if first < last:
                    yield begin, first, last
                first = last
