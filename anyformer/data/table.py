"""Tables: rows of named columns from TSV, CSV and JSONL files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.roles import Tokenizer
from anyformer.core.spec import Fraction, spec
from anyformer.data.base import InFiles, Row
from anyformer.data.reading import find
from anyformer.data.records import FORMATS, Format, chosen, delimited, format_of, json_lines
from anyformer.data.text import Name
from anyformer.data.tokenizers.bytes import Bytes

Paths = Name | Annotated[tuple[Name, ...], Field(min_length=1)]


@spec
class Table(InFiles):
    """A row is a line of a TSV or CSV file, or an object on a line of a JSONL file; each may be packed by gzip.

    path: files and folders, found as those of `text`. validation_path: those that are held out, instead of a fraction.
    columns: the name that is asked for -> the file's, such as {text: sentence}; {}: all columns, under their own names.
    names: of the columns, where the files have no header. format: None: as the file's name says. errors: what becomes
    of bytes that are no UTF-8, an error or U+FFFD. source: what the data is and where it is published.
    """

    path: Paths
    validation_path: Paths | None = None
    columns: dict[Name, Name] = Field(default_factory=dict)
    names: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    format: Format | None = None
    tokenizer: Tokenizer = Bytes()
    source_tokenizer: Tokenizer | None = None
    held_out: Fraction = 0.1
    errors: Literal["strict", "replace"] = "strict"
    source: str = ""

    @model_validator(mode="after")
    def _named_once(self) -> Table:
        if self.names is not None and len({*self.names}) < len(self.names):
            raise ValueError(f"names ({', '.join(self.names)}) must differ from each other")
        return self

    def _rows(self, paths: Paths, field: str) -> Iterator[Row]:
        columns, found = self.columns, False
        paths = (paths,) if isinstance(paths, str) else paths
        suffixes = tuple(f".{form}" for form in FORMATS if self.format in (None, form))
        for file in (file for path in paths for file in find(path, self.source, suffixes, field)):
            form = self.format or format_of(file)
            if form != "jsonl":
                records = delimited(file, form, self.names, self.errors)
            elif self.names is None:
                records = json_lines(file, self.errors)
            else:
                raise ConfigError(f"{file}: objects have names of their own: leave data.names out, set data.columns")
            for number, record in records:
                columns = columns or {name: name for name in record}  # every row has what the first one has
                found = True
                yield chosen(record, columns, f"{file}, line {number}")
        if not found:
            raise InputError(f"{', '.join(paths)}: no row, only empty files or headers: name files that hold rows")
