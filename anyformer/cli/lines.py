"""Lines of a file, each answered in its place: what cannot be read is told by its number, and the rest is done."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

from typer import Exit

from anyformer.cli.frame import Frame
from anyformer.core.errors import InputError
from anyformer.data.base import Row

T = TypeVar("T")
FILE = "Lines of text, or of JSON (.jsonl); - reads standard input."


@dataclass
class Lines:
    """name: for messages. jsonl: each line is a JSON object. bad: how many could not be read until now."""

    name: str
    lines: Iterable[str]
    jsonl: bool
    bad: int = 0

    @staticmethod
    def of(file: str) -> "Lines":
        """Of a file, or of standard input."""
        if file == "-":
            return Lines("standard input", _standard_input(), jsonl=False)
        from anyformer.data.reading import read_lines

        path = Path(file)
        return Lines(file, read_lines(path, "surrogateescape"), ".jsonl" in path.suffixes)

    def rows(self) -> Iterator[str | Row | InputError]:
        """Each line as a text or a row, or what is wrong with it."""
        from anyformer.data.records import json_object

        for line in self.lines:
            text = line.rstrip("\r\n")
            try:
                text.encode()
                if not text.strip():
                    raise InputError("is empty")
                yield _texts(json_object(text)) if self.jsonl else text
            except UnicodeEncodeError as error:
                yield InputError(f"is no UTF-8 after {error.start} characters")
            except InputError as error:
                yield error

    def told(self, frame: Frame, answers: Iterable[T | InputError]) -> Iterator[tuple[str, T | InputError]]:
        """Where each line is and its answer; what is wrong with one is told."""
        for number, answer in enumerate(answers, 1):
            where = f"{self.name}, line {number}"
            if isinstance(answer, InputError):
                self.bad += 1
                frame.warn(f"{where}: {answer}")
            yield where, answer

    def end(self, frame: Frame) -> None:
        """Leave with an exit code of its own where some lines could not be read."""
        if self.bad:
            frame.say(f"{self.bad} lines could not be read")
            raise Exit(InputError.exit_code)


def _texts(record: Mapping[str, Any]) -> Row:
    """The columns that hold text; what else a record has is not asked for."""
    return {name: value for name, value in record.items() if isinstance(value, str)}


def _standard_input() -> Iterable[str]:
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return sys.stdin
