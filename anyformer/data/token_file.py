"""TokenFile: the tokens of a split in one memory-mapped file, with its documents' borders and its size as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyformer.data.tokenizer import TextTokenizer


@dataclass(frozen=True)
class TokenFile:
    """tokens: (N,), read from the disk as they are needed. starts: (documents,), where each document begins.

    bytes: how many bytes of UTF-8 its text has, so that bits per byte = nats in all / (log 2 * bytes).
    fingerprint: sha256 of tokens and borders; equal fingerprints are equal data.
    """

    tokens: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]
    bytes: int
    vocabulary: int
    fingerprint: str
    constant: bool
    """Whether it is one token over and over, from which nothing can be learnt."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bytes_per_token(self) -> float:
        """How much text a token stands for, on average."""
        return self.bytes / len(self) if len(self) else 0.0

    def documents(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """The number of the document that each position belongs to, in the same shape."""
        return np.searchsorted(self.starts, positions, side="right").astype(np.int64) - 1

    @classmethod
    def open(cls, folder: Path, name: str) -> TokenFile:
        """One that `write_tokens` wrote."""
        header = json.loads((folder / f"{name}.json").read_text("utf-8"))
        path, dtype = folder / f"{name}.tokens", np.dtype(header["dtype"])
        empty = path.stat().st_size == 0  # which cannot be mapped
        return cls(
            tokens=np.empty(0, dtype) if empty else np.memmap(path, dtype, mode="r"),
            starts=np.fromfile(folder / f"{name}.starts", "<i8").astype(np.int64, copy=False),
            bytes=header["bytes"],
            vocabulary=header["vocabulary"],
            fingerprint=header["fingerprint"],
            constant=header["constant"],
        )


def write_tokens(folder: Path, name: str, documents: Iterable[str], tokenizer: TextTokenizer) -> None:
    """Three files: the tokens, 16 bits each where the vocabulary allows; the starts of documents; and what is known.

    A document's tokens stand between the tokenizer's begin and end tokens, where it has them; where they are one and
    the same, it stands once between documents. Files hold little-endian numbers on every machine.
    """
    dtype = np.dtype("<u2" if tokenizer.vocabulary <= 1 << 16 else "<u4")
    before = [] if tokenizer.begin is None else [tokenizer.begin]
    after = [] if tokenizer.end is None or tokenizer.end == tokenizer.begin else [tokenizer.end]
    size = 0

    def counted() -> Iterable[str]:
        nonlocal size
        for document in documents:
            size += len(document.encode("utf-8", "surrogatepass"))  # half of a pair is refused by the tokenizer
            yield document

    starts, least, most = [], tokenizer.vocabulary, -1
    written, digest, current = 0, hashlib.sha256(), -1
    with (folder / f"{name}.tokens").open("wb") as stream:

        def append(ids: NDArray[np.unsignedinteger] | list[int]) -> None:
            nonlocal least, most, written
            array = np.asarray(ids, dtype=dtype)
            if array.size:
                least, most = min(least, int(array.min())), max(most, int(array.max()))
                written += array.size
                digest.update(array.data)
                stream.write(array.data)

        for number, ids in tokenizer.encode_documents(counted()):
            if number != current:
                if current >= 0:
                    append(after)
                current = number
                starts.append(written)
                append(before)
            append(ids)
        if current >= 0:
            append(after)
    borders = np.array(starts, dtype="<i8")
    borders.tofile(folder / f"{name}.starts")
    digest.update(borders.data)
    digest.update(dtype.str.encode())
    header = {
        "dtype": dtype.str,
        "vocabulary": tokenizer.vocabulary,
        "tokens": written,
        "documents": len(starts),
        "bytes": size,
        "constant": written > 1 and least == most,
        "fingerprint": digest.hexdigest(),
    }
    (folder / f"{name}.json").write_text(json.dumps(header, indent=1), "utf-8")
