"""Sides: data divided into what is trained on and what is held out, each readable again and again, row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from anyformer.core.errors import InputError
from anyformer.data.base import Row, TextData, column, written
from anyformer.data.split import Split, split

Side = Literal["train", "held_out"]


@dataclass(frozen=True)
class Sides:
    """contents: sha256 of all rows. parts: which of them are held out; None: the data names its own validation set."""

    data: TextData
    contents: str
    parts: Split | None

    def rows(self, side: Side) -> Iterator[Row]:
        """The rows of one side; of a single text, its head or its tail."""
        if self.parts is None:
            yield from self.data.rows() if side == "train" else (self.data.validation() or ())
            return
        rows, held = self.data.rows(), side == "held_out"
        if self.parts.tail in (0, 1):  # nothing is cut
            marks = self.parts.held | bool(self.parts.tail)
            some = (row for row, is_held in zip(rows, marks, strict=True) if is_held == held)
            yield from _once(some) if held and self.data.repeats else some
            return
        for row in rows:
            cut = self.parts.held_out if held else self.parts.training
            yield from ({"text": text} for text in cut([_only(row)]))

    def texts(self, side: Side, columns: Iterable[str]) -> Iterator[str]:
        """What stands in some columns, row by row; those that are not there are passed over, if not all."""
        names = tuple(columns)
        for row in self.rows(side):
            yield from [row[name] for name in names if name in row] or [column(row, names[0])]


def sides(data: TextData, seed: int) -> Sides:
    """Reads all rows once. seed: decides which rows are held out, where the data does not say it itself."""
    held_out, digest = data.validation(), hashlib.sha256()
    if held_out is None:
        rows = data.rows()
        first = next(rows)
        parts = split(map(written, chain([first], rows)), data.held_out, seed)
        digest.update(parts.contents.encode())
        digest.update("\x1f".join(first).encode())  # the columns' names are no part of what rows say
        return Sides(data, digest.hexdigest(), parts)
    for rows in (data.rows(), held_out):
        for row in rows:
            text = "\x1f".join((*row, written(row)))
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        digest.update(b"validation")
    return Sides(data, digest.hexdigest(), None)


def _once(rows: Iterable[Row]) -> Iterator[Row]:
    """Each row once, however often in a row it comes."""
    before: Row | None = None
    for row in rows:
        if row != before:
            yield row
        before = row


def _only(row: Row) -> str:
    if row.keys() != {"text"}:
        raise InputError(
            "the data is one row, over and over, which cannot be divided: give more rows, or set data.held_out to 0"
            " (all are trained on) or 1 (none is)"
        )
    return row["text"]
