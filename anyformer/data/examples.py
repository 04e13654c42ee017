"""Examples: encoded rows, each some named arrays of numbers of any lengths, in memory-mapped files made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Example = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Ragged:
    """values: (N,), read from the disk as they are needed. starts: (rows + 1,), where each row begins and the end."""

    values: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __getitem__(self, row: int) -> NDArray[np.int64]:
        return self.values[self.starts[row] : self.starts[row + 1]].astype(np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(rows,)"""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Examples:
    """columns: what each example holds. bytes: of its texts as UTF-8. fingerprint: equal ones are equal data."""

    columns: Mapping[str, Ragged]
    rows: int
    bytes: int
    fingerprint: str

    def __len__(self) -> int:
        return self.rows

    def padded(self, name: str, rows: Sequence[int] | NDArray[np.integer], fill: int) -> NDArray[np.int64]:
        """(B, longest of these rows): one column of some rows, filled up on the right."""
        return padded([self.columns[name][int(row)] for row in rows], fill)[0]

    def lengths(self, name: str, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """(B,): how many numbers a column has in some rows."""
        starts = self.columns[name].starts
        return starts[rows + 1] - starts[rows]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Examples:
        """A few that are held in memory."""
        columns = {
            name: Ragged(
                np.concatenate([example[name] for example in examples]).astype(np.int32),
                np.cumsum([0, *(len(example[name]) for example in examples)]),
            )
            for name in examples[0]
        }
        return cls(columns, len(examples), 0, "")

    @classmethod
    def open(cls, folder: Path, name: str) -> Examples:
        """Those that `write_examples` wrote."""
        header = json.loads((folder / f"{name}.json").read_text("utf-8"))
        columns = {column: _open(folder, name, column, header["rows"]) for column in header["columns"]}
        return cls(columns, header["rows"], header["bytes"], header["fingerprint"])


def _open(folder: Path, name: str, column: str, rows: int) -> Ragged:
    path = folder / f"{name}.{column}.values"
    empty = path.stat().st_size == 0  # which cannot be mapped
    starts = np.fromfile(folder / f"{name}.{column}.starts", "<i8").astype(np.int64, copy=False)
    assert len(starts) == rows + 1, path
    return Ragged(np.empty(0, np.int32) if empty else np.memmap(path, "<i4", mode="r"), starts)


def write_examples(folder: Path, name: str, columns: Sequence[str], examples: Iterable[tuple[int, Example]]) -> None:
    """Two files a column (values of 32 bits, little-endian, and starts), and what is known.

    examples: pairs of a row's size as text in bytes, and its arrays, one for each of `columns`.
    """
    digest, size, rows = hashlib.sha256(), 0, 0
    starts: dict[str, list[int]] = {column: [0] for column in columns}
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {
            column: stack.enter_context((folder / f"{name}.{column}.values").open("wb")) for column in columns
        }
        for bytes_of_row, example in examples:
            size, rows = size + bytes_of_row, rows + 1
            for column in columns:
                values = np.asarray(example[column], dtype="<i4")
                files[column].write(values.data)
                digest.update(values.data)
                starts[column].append(starts[column][-1] + len(values))
    for column, borders in starts.items():
        array = np.array(borders, dtype="<i8")
        array.tofile(folder / f"{name}.{column}.starts")
        digest.update(column.encode())
        digest.update(array.data)
    header = {"columns": list(columns), "rows": rows, "bytes": size, "fingerprint": digest.hexdigest()}
    (folder / f"{name}.json").write_text(json.dumps(header, indent=1), "utf-8")


def padded(
    rows: Sequence[Sequence[int] | NDArray[np.integer]], fill: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(B, longest), filled up on the right, and the lengths (B,)."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    out = np.full((len(rows), lengths.max(initial=0)), fill, dtype=np.int64)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out, lengths
