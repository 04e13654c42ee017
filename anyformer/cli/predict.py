"""`anyformer predict`: an answer for every line of a file, as JSON lines."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context, Exit

from anyformer.cli.frame import Frame
from anyformer.cli.opening import Allow, Best, Dtype, Set, Surgery, how, report
from anyformer.core.errors import InputError, NumericalStop
from anyformer.data.base import Row

EXAMPLES = (
    "anyformer predict runs/sst2 reviews.txt",
    "anyformer predict runs/sst2 pairs.jsonl > answers.jsonl",
)


def predict(
    ctx: Context,
    run: Annotated[Path, Argument(help="A run folder, or a published checkpoint.", metavar="RUN")],
    file: Annotated[str, Argument(help="Lines of text, or of JSON (.jsonl); - reads standard input.", metavar="FILE")],
    best: Best = False,
    set: Set = None,
    allow: Allow = None,
    dtype: Dtype = None,
    surgery: Surgery = None,
) -> None:
    """Say the class, tags, span, number, vector or missing words of every line, in order, as JSON lines.

    A line that cannot be read is answered by {"error": …} in its place, and the rest is done; the exit code is then 3.
    """
    frame = Frame.of(ctx)
    opening = how(frame, best, set, allow, dtype)
    if surgery is not None:
        report(frame, run, opening)
        return
    lines, name = (_standard_input(), "standard input") if file == "-" else (_lines(Path(file)), file)
    from anyformer.training.predict import predictor

    bad = 0
    for number, answer in enumerate(
        predictor(run, **opening).answers(_rows(lines, jsonl=".jsonl" in Path(file).suffixes)),
        1,
    ):
        if isinstance(answer, InputError):
            bad += 1
            frame.warn(f"{name}, line {number}: {answer}")
            answer = {"error": str(answer)}
        try:
            frame.put_json(answer)
        except ValueError:
            raise NumericalStop(
                f"{name}, line {number}: the answer is no number: the run's weights are no use"
            ) from None
    if bad:
        frame.say(f"{bad} lines could not be read")
        raise Exit(InputError.exit_code)


def _rows(lines: Iterable[str], jsonl: bool) -> Iterator[str | Row | InputError]:
    from anyformer.data.records import json_object

    for line in lines:
        text = line.rstrip("\r\n")
        try:
            text.encode()
            if not text.strip():
                raise InputError("is empty")
            yield _texts(json_object(text)) if jsonl else text
        except UnicodeEncodeError as error:
            yield InputError(f"is no UTF-8 after {error.start} characters")
        except InputError as error:
            yield error


def _texts(record: Mapping[str, Any]) -> Row:
    """The columns that hold text; what else a record has is not asked for."""
    return {name: value for name, value in record.items() if isinstance(value, str)}


def _lines(path: Path) -> Iterator[str]:
    from anyformer.data.reading import read_lines

    return read_lines(path, "surrogateescape")


def _standard_input() -> Iterable[str]:
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return sys.stdin
