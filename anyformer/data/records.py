"""Records: the rows of a TSV, CSV or JSONL file, one at a time, refused by line number where they are damaged."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from anyformer.core.errors import InputError
from anyformer.core.explain import came
from anyformer.core.tables import nearest
from anyformer.data.base import Row
from anyformer.data.reading import LONGEST, read_lines

Format = Literal["tsv", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = ("tsv", "csv", "jsonl")
Errors = Literal["strict", "replace"]


def format_of(file: Path) -> Format:
    """What a file is by its name."""
    suffix = Path(file.name.lower().removesuffix(".gz")).suffix
    for known in FORMATS:
        if suffix == f".{known}":
            return known
    raise InputError(f"{file}: its name does not end in .tsv, .csv or .jsonl: say which it is by --set data.format=tsv")


def delimited(
    file: Path, form: Literal["tsv", "csv"], names: tuple[str, ...] | None, errors: Errors
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a TSV or CSV file and the line on which each ends; lines without anything are passed over.

    A cell of a CSV file may stand in quotes; in a TSV file a quote is a quote. names: of the columns; None: the first
    row has them.
    """
    # A setting of the whole process, and so only ever raised; it is there to end a quote that nobody closes.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    lines = read_lines(file, errors)
    if form == "csv":
        reader = csv.reader(lines, strict=True)
    else:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    try:
        for cells in reader:
            if not cells:
                continue
            if names is None:
                names = _header(cells, f"{file}, line {reader.line_num}")
            elif len(cells) != len(names):
                raise InputError(
                    f"{file}, line {reader.line_num}: has {len(cells)} cells, and there are {len(names)} columns"
                    f" ({', '.join(names)}): {HINTS[form]}"
                )
            else:
                yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        reason = "a carriage return inside of a row" if "new-line" in str(error) else str(error)
        raise InputError(f"{file}, line {reader.line_num}: is no {form.upper()}: {reason}: {HINTS[form]}") from None


HINTS = {
    "tsv": "write a tab or a line break inside of a text as a space",
    "csv": 'a cell with a comma, a quote or a line break stands in quotes, "like ""this"", say"',
}


def _header(cells: list[str], where: str) -> tuple[str, ...]:
    twice = [name for name in cells if cells.count(name) > 1]
    if twice:
        raise InputError(
            f"{where}: the column {twice[0]!r} stands twice in the header: rename one, or name the columns of a file"
            " that has no header by --set data.names=[...]"
        )
    return tuple(cells)


def json_lines(file: Path, errors: Errors) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of a JSONL file and the lines they stand on; numbers are kept as they are written."""
    for number, line in enumerate(read_lines(file, errors), 1):
        if not line.strip():
            continue
        try:
            yield number, json_object(line)
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from None


def json_object(line: str) -> Mapping[str, Any]:
    """What one line of a JSONL file says."""
    try:
        found = json.loads(line, parse_int=str, parse_float=str, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f'should be an object such as {{"text": ...}}; came {came(found)}')
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def chosen(record: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Row:
    """A record as a row. columns: our name -> the record's; a dot reaches what is nested, as in `translation.en`."""
    return {name: _text(record, column, f"{where}: the column {column!r}") for name, column in columns.items()}


def _text(record: Mapping[str, Any], column: str, where: str) -> str:
    value = _value(record, column, where)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str):
        raise InputError(f"{where} should be text or a number; came {came(value)}; {ELSE}")
    if not value.strip():
        raise InputError(f"{where} is empty: take the row out; {ELSE}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} holds half of a surrogate pair, which is no character: take it out") from None
    return value


ELSE = "where another column is meant, say so by --set data.columns.text=NAME"


def _value(record: Mapping[str, Any], column: str, where: str) -> Any:
    if column in record:
        return record[column]
    first, dot, rest = column.partition(".")
    if dot and isinstance(record.get(first), Mapping):
        return _value(record[first], rest, where)
    raise InputError(f"{where} is not there; there are: {', '.join(record)}{nearest(column, record)}; {ELSE}")
