"""Which documents are held out, decided by what they say: neither their order nor their neighbours matter.

Every document gets a number from sha256(seed, document), and the smallest are held out. Equal documents have equal
numbers, so that no text is on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """contents: sha256 of all documents. held: (documents,) bool. tail: the part to hold out of each of the others."""

    contents: str
    held: NDArray[np.bool_]
    tail: float

    def training(self, documents: Iterable[str]) -> Iterator[str]:
        """What is trained on."""
        for document, held in zip(documents, self.held, strict=True):
            text = document[: self._border(document)]
            if text and not held:
                yield text

    def held_out(self, documents: Iterable[str]) -> Iterator[str]:
        """What is not."""
        for document, held in zip(documents, self.held, strict=True):
            text = document if held else document[self._border(document) :]
            if text:
                yield text

    def _border(self, document: str) -> int:
        return int(len(document) * (1 - self.tail))


def split(documents: Iterable[str], fraction: float, seed: int) -> Split:
    """Hold out `fraction` of the documents: at least one, and never all, unless it is 0 or 1.

    A single document (or copies of one) is cut instead: its tail is held out.
    """
    contents, numbers = hashlib.sha256(), []
    for document in documents:
        digest = hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()
        contents.update(digest)
        numbers.append(hashlib.sha256(f"{seed}:".encode() + digest).digest()[:8])
    order = np.frombuffer(b"".join(numbers), dtype=">u8").astype(np.uint64)
    distinct = np.unique(order)  # sorted
    if len(distinct) < 2:
        return Split(contents.hexdigest(), np.zeros(len(order), dtype=bool), fraction)
    count = round(fraction * len(distinct))
    if 0 < fraction < 1:
        count = min(max(count, 1), len(distinct) - 1)
    held = order <= distinct[count - 1] if count else np.zeros(len(order), dtype=bool)
    return Split(contents.hexdigest(), held, 0.0)
