"""Parallel texts: two files that are aligned line by line, such as a translation and what it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.roles import Tokenizer
from anyformer.core.spec import Fraction, spec
from anyformer.data.base import InFiles, Row
from anyformer.data.reading import locate, read_lines
from anyformer.data.text import Name
from anyformer.data.tokenizers.bytes import Bytes


@spec
class Parallel(InFiles):
    """A row is a line of each of two files: the columns `source` and `target`.

    path: the file of the sources and that of the targets, each packed by gzip or not, found as those of `text`.
    validation_path: the pair that is held out, instead of a fraction. source_tokenizer: None: one tokenizer for both
    sides, trained on both. empty: what becomes of a row with nothing on one side, an error or nothing.
    """

    path: tuple[Name, Name]
    validation_path: tuple[Name, Name] | None = None
    tokenizer: Tokenizer = Bytes()
    source_tokenizer: Tokenizer | None = None
    held_out: Fraction = 0.1
    empty: Literal["error", "skip"] = "error"
    errors: Literal["strict", "replace"] = "strict"
    source: str = ""

    def elsewhere(self, path: str) -> InFiles:
        """path: both files, with a comma between."""
        pair = tuple(part.strip() for part in path.split(","))
        if len(pair) != 2 or not all(pair):
            raise ConfigError(f"{path!r} should name two files with a comma between: SOURCE,TARGET")
        return super().elsewhere(pair)

    def _rows(self, paths: tuple[str, str], field: str) -> Iterator[Row]:
        source, target = (self._file(path, f"{field}.{side}") for side, path in enumerate(paths))
        lines = zip_longest(read_lines(source, self.errors), read_lines(target, self.errors))
        found = False
        for number, (left, right) in enumerate(lines, 1):
            if left is None or right is None:
                raise self._uneven(source, target)
            row = {"source": left.rstrip("\r\n"), "target": right.rstrip("\r\n")}
            bare = [name for name, text in row.items() if not text.strip()]
            if not bare:
                found = True
                yield row
            elif self.empty == "error":
                file = source if bare[0] == "source" else target
                raise InputError(
                    f"{file}, line {number}: is empty: take the line out of both files, or leave such rows out by --set"
                    " data.empty=skip"
                )
        if not found:
            raise InputError(f"{source} and {target}: no row: name files that hold text")

    def _file(self, path: str, field: str) -> Path:
        file = locate(path, self.source, field)
        if file.is_dir():
            raise InputError(f"{file} is a folder: name one file for the sources and one for the targets ({field})")
        return file

    def _uneven(self, source: Path, target: Path) -> InputError:
        counts = [sum(1 for _ in read_lines(file, "replace")) for file in (source, target)]
        return InputError(
            f"{source} has {counts[0]} lines and {target} has {counts[1]}: they should be aligned line by line"
        )
