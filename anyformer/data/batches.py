"""Batches: which tokens a step sees, as a pure function of (seed, step), so that a resumed run needs no other state.

An epoch cuts the file into windows of `length` tokens, from a random offset on, and sees each once, in random order.
Both are drawn by Philox (Salmon et al. 2011), a generator that is a function of a counter: here of (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import InputError
from anyformer.data.token_file import TokenFile


@dataclass(frozen=True)
class Batches:
    """`length` tokens to read and, one later, `length` to predict: windows of length + 1 sharing their end tokens."""

    tokens: TokenFile
    batch: int
    length: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch < 1 or self.length < 1:
            raise ValueError(f"batch ({self.batch}) and length ({self.length}) must be at least 1")
        if len(self.tokens) <= self.length:
            raise InputError(
                f"the text has {len(self.tokens)} tokens, and one window is {self.length + 1}: give more text, or lower"
                f" training.length to at most {max(len(self.tokens) - 1, 1)}"
            )

    @property
    def windows(self) -> int:
        """How many windows an epoch has, whatever its offset: one less than fit, so that there is room to move."""
        return max((len(self.tokens) - 1) // self.length - 1, 1)

    @property
    def offsets(self) -> int:
        """How many offsets an epoch may begin at: up to the one whose last window ends with the file."""
        return len(self.tokens) - self.windows * self.length

    def at(self, step: int) -> NDArray[np.int64]:
        """(batch, length + 1), the tokens of a step, counted from 0."""
        return self.tokens.tokens[self._positions(step)].astype(np.int64)

    def documents(self, step: int) -> NDArray[np.int64]:
        """(batch, length + 1), the number of the document that each of those tokens belongs to."""
        return self.tokens.documents(self._positions(step))

    def _positions(self, step: int) -> NDArray[np.int64]:
        if step < 0:
            raise ValueError(f"step ({step}) must be at least 0")
        first = step * self.batch
        starts = [self._start(*divmod(number, self.windows)) for number in range(first, first + self.batch)]
        return np.array(starts)[:, None] + np.arange(self.length + 1)

    def _start(self, epoch: int, place: int) -> int:
        offset, order = _epoch(self.seed, epoch, self.offsets, self.windows)
        return offset + int(order[place]) * self.length


@lru_cache(maxsize=4)  # a batch can lie in two epochs, of training and of a second user
def _epoch(seed: int, epoch: int, offsets: int, windows: int) -> tuple[int, NDArray[np.int64]]:
    """The offset, and the order of the windows.

    From the raw numbers of the generator, which numpy promises to keep; what it makes of them may change by version.
    """
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    raw = np.random.Philox(key=key).random_raw(windows + 1)
    return int(raw[0] % offsets), np.argsort(raw[1:], kind="stable")


def windows(tokens: TokenFile, length: int, batch: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The whole file in order, for evaluation: (ids (b, length + 1), lengths (b,)), b being `batch` but for the last.

    Every token is to be predicted once, but for the first, before which there is nothing. Row i reads
    ids[i, :lengths[i]] and predicts ids[i, 1 : lengths[i] + 1]; what lies beyond, in the last row, is 0.
    """
    if batch < 1 or length < 1:
        raise ValueError(f"batch ({batch}) and length ({length}) must be at least 1")
    starts = range(0, len(tokens) - 1, length)
    for first in range(0, len(starts), batch):
        rows = starts[first : first + batch]
        lengths = np.array([min(length, len(tokens) - 1 - start) for start in rows], dtype=np.int64)
        ids = np.zeros((len(rows), length + 1), dtype=np.int64)
        for row, (start, real) in enumerate(zip(rows, lengths, strict=True)):
            ids[row, : real + 1] = tokens.tokens[start : start + real + 1]
        yield ids, lengths
