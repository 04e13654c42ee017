"""What text data offers, and what a tokenizer is made from. No torch and no numpy: recipes are checked without them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from anyformer.core.errors import InputError
from anyformer.core.spec import DataSpec, TokenizerSpec
from anyformer.core.tables import nearest

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer

Row = Mapping[str, str]  # column -> what stands there


class TextData(DataSpec, ABC):
    """Data that is a list of rows, each of named columns of text; plain texts have the one column `text`.

    tokenizer: how they become numbers. source_tokenizer: how the column `source` does; None: as all others do.
    held_out: the fraction of the rows that is never trained on; of a single text it is the tail; 1 keeps all of it for
    evaluation.
    """

    tokenizer: TokenizerSpec
    source_tokenizer: TokenizerSpec | None = None
    held_out: float
    repeats: ClassVar[bool] = False
    """Whether a row that is to be read more often comes several times, one after the other."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Every row, in an order that does not change; raises InputError where there is none."""

    def validation(self) -> Iterator[Row] | None:
        """Every row of a set that is held out whole; None: a fraction of `rows` is held out."""
        return None

    @abstractmethod
    def elsewhere(self, path: str) -> TextData:
        """The same kind of data at another path, all of it held out: what a finished run is measured on."""


class InFiles(TextData, ABC):
    """Rows in files.

    path: the files, in whatever form the data names them. validation_path: those that are held out, instead of a
    fraction.
    """

    path: Any
    validation_path: Any

    def rows(self) -> Iterator[Row]:
        """Line by line, files in the order of `path` and sorted within a folder."""
        return self._rows(self.path, "data.path")

    def validation(self) -> Iterator[Row] | None:
        if self.validation_path is None:
            return None
        return self._rows(self.validation_path, "data.validation_path")

    def elsewhere(self, path: Any) -> InFiles:
        return dataclasses.replace(self, path=path, validation_path=None, held_out=1.0)

    @abstractmethod
    def _rows(self, paths: Any, field: str) -> Iterator[Row]:
        """The rows of some files. field: where they are named, for messages."""


def written(row: Row) -> str:
    """All that a row says; a plain text is what it is."""
    return "\x1f".join(row.values())


def column(row: Row, name: str) -> str:
    """What stands in a column that has to be there."""
    if name not in row:
        raise InputError(
            f"the data has no column {name!r}; it has: {', '.join(row)}{nearest(name, row)}; say which one is meant, as"
            f" in --set data.columns.{name}={next(iter(row), 'NAME')}"
        )
    return row[name]


class TextTokenizerSpec(TokenizerSpec, ABC):
    """A tokenizer of texts."""

    def existing(self) -> TextTokenizer | None:
        """The tokenizer, where it needs no training; None: it is yet to be trained."""
        return None

    @abstractmethod
    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """The tokenizer for these documents: what it learns, it learns from the training text."""
