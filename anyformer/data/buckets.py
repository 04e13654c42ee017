"""Buckets: batches of rows that are about as long as each other, so that little is padding.

An epoch puts all rows into random order, cuts that into pools, sorts each pool by length, cuts it into batches, and
puts the batches into random order. Which rows a batch has is a pure function of (seed, number of the batch).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import InputError

POOL = 64  # batches that are sorted together: more sort better, and mix less


@dataclass(frozen=True, eq=False)
class Buckets:
    """lengths: (rows,), what is sorted by. Rows that do not fill a batch wait for the next epoch."""

    lengths: NDArray[np.int64]
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch ({self.batch}) must be at least 1")
        if not len(self.lengths):
            raise InputError("there is no row to train on: give more data, or lower data.held_out")

    @property
    def size(self) -> int:
        """Rows a batch: what was asked for, or all there are."""
        return min(self.batch, len(self.lengths))

    @property
    def batches(self) -> int:
        """How many batches an epoch has."""
        return len(self.lengths) // self.size

    def at(self, number: int) -> NDArray[np.int64]:
        """(size,): the rows of a batch, counted from 0."""
        epoch, place = divmod(number, self.batches)
        return _epoch(self, epoch)[place]


@lru_cache(maxsize=2)
def _epoch(buckets: Buckets, epoch: int) -> NDArray[np.int64]:
    """(batches, size), from the raw numbers of the generator, which numpy promises to keep."""
    rows, batches, size = len(buckets.lengths), buckets.batches, buckets.size
    raw = np.random.Philox(key=np.array([buckets.seed % 2**64, epoch], dtype=np.uint64)).random_raw(rows + batches)
    order = np.argsort(raw[:rows], kind="stable")[: batches * size]
    pools = np.split(order, range(POOL * size, len(order), POOL * size))
    by_length = [pool[np.argsort(buckets.lengths[pool], kind="stable")] for pool in pools]
    return np.concatenate(by_length).reshape(batches, size)[np.argsort(raw[rows:], kind="stable")]
