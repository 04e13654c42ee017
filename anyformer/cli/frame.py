"""What every verb has: five options, data on standard output, messages on standard error.

A verb is a function whose first parameter is `ctx: typer.Context`; `Frame.of(ctx)` is what the person asked of it.
"""

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TextIO

from typer import Context, Option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The options of all verbs, and the only two ways out for what a verb has to say."""

    device: str | None = None
    threads: int | None = None
    quiet: bool = False
    json: bool = False
    debug: bool = False

    @staticmethod
    def of(ctx: Context) -> "Frame":
        """The frame of a verb that runs."""
        assert isinstance(ctx.obj, Frame), "verbs are called through anyformer.cli.main"
        return ctx.obj

    def put(self, text: str, end: str = "\n") -> None:
        """Data, to standard output; without an end of line it is shown at once, for text that streams."""
        print(text, end=end, flush=not end)

    def put_json(self, value: object) -> None:
        """One JSON value on one line of standard output; NaN is refused, since no reader of JSON knows it."""
        self.put(json.dumps(value, ensure_ascii=False, allow_nan=False))

    def put_table(self, rows: list[tuple[str, ...]], heads: tuple[str, ...] = ()) -> None:
        """Aligned columns; the last is cut to the terminal's width, and left whole where there is none."""
        for line in aligned([heads, *rows] if heads else rows, terminal_width(sys.stdout)):
            self.put(line)

    def say(self, message: str) -> None:
        """A message, to standard error; `--quiet` drops it."""
        if not self.quiet:
            print(message, file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """A message that matters even to the quiet."""
        print(f"warning: {message}", file=sys.stderr, flush=True)

    @property
    def bar(self) -> bool:
        """Whether a progress bar may be drawn: only for a person who watches a terminal and did not ask for quiet."""
        return not self.quiet and is_terminal(sys.stderr)

    def torch_device(self, default: str = "auto") -> "torch.device":
        """The device to use, after setting `--threads`; `auto` is the first accelerator there is, else the cpu."""
        import torch

        from anyformer.core.errors import ConfigError

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        name = self.device or default
        if name == "auto":
            return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        try:
            device = torch.device(name)
            torch.empty(1, device=device)  # a name may be well formed and its device absent
        except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
            reason = " ".join(str(error).split()).partition(". ")[0][:120]
            raise ConfigError(f"--device {name} cannot be used here ({reason}); auto and cpu always can") from None
        return device


def options(
    device: Annotated[str | None, Option(help="auto, cpu, cuda, cuda:1, mps …", metavar="NAME")] = None,
    threads: Annotated[int | None, Option(min=1, help="Processor threads that torch may use.", metavar="N")] = None,
    quiet: Annotated[bool, Option("--quiet", help="No messages, no progress bar.")] = False,
    json: Annotated[bool, Option("--json", help="Results as JSON, for machines.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error.")] = False,
) -> Frame:
    """The options every verb has, declared once."""
    return Frame(device=device, threads=threads, quiet=quiet, json=json, debug=debug)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches; a closed stream is None."""
    return stream is not None and stream.isatty()


def terminal_width(stream: TextIO | None) -> int | None:
    """Columns of the terminal behind a stream, None where there is none."""
    if not is_terminal(stream):
        return None
    from shutil import get_terminal_size

    return get_terminal_size().columns


def aligned(rows: list[tuple[str, ...]], width: int | None) -> list[str]:
    """Rows of equal length as lines with aligned columns, the last column cut so that lines fit the width."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in rows]
    return [line if width is None or len(line) <= width else f"{line[: width - 1]}…" for line in lines]
