"""`anyformer bench`: speed and memory beside what else is installed, in one interleaved run."""

import sys
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from anyformer.benchmarks.compare import OURS
from anyformer.cli.frame import Frame, terminal_width
from anyformer.core.errors import ConfigError
from anyformer.core.tables import nearest, row, table

if TYPE_CHECKING:
    from anyformer.benchmarks.base import Benchmark
    from anyformer.benchmarks.compare import Row

EXAMPLES = ("anyformer bench loading", "anyformer bench load-124m --rounds 3 --threads 1 --json")
PACKAGE, ALL = "anyformer.benchmarks", "all"
WIDTH = 120  # of the table where no terminal says it


def bench(
    ctx: Context,
    what: Annotated[str, Argument(help="A benchmark, one case of one, or all.", metavar="WHAT")] = ALL,
    rounds: Annotated[int, Option(min=1, help="How often each side runs; the median counts.", metavar="N")] = 5,
) -> None:
    """Measure ours beside its rivals, both in turn; a ratio above 1 is ours being faster.

    A rival that is not installed is named and left out: `make bench-env` installs them. --json gives an object a line.
    """
    frame = Frame.of(ctx)
    todo = chosen(what)
    if (device := frame.torch_device("cpu")).type != "cpu":
        raise ConfigError(f"--device {device}: what there is to compare runs on the cpu so far")
    import torch

    from anyformer.benchmarks.compare import compared, missing

    rows, threads = [], torch.get_num_threads()
    for name, (benchmark, cases) in todo.items():
        gone = missing(benchmark.rivals)
        for rival in gone:
            frame.warn(f"{rival} is not installed and left out; `make bench-env` installs it")
        for case in cases if len(gone) < len(benchmark.rivals) else ():
            frame.say(f"{case}: {rounds} rounds, {threads} threads")
            with benchmark.opened(case, threads) as opened:
                for found in compared(name, case, opened, gone, threads, rounds):
                    rows.append(found)
                    if frame.json:
                        frame.put_json(found.to_dict())
    if not rows:
        raise ConfigError("there is nothing to compare with: no rival is installed; `make bench-env` installs them")
    if not frame.json:
        show(rows)


def chosen(what: str) -> dict[str, "tuple[Benchmark, tuple[str, ...]]"]:
    """The benchmarks of a word, with their cases."""
    known: dict[str, Benchmark] = {name: row(PACKAGE, name)() for name in table(PACKAGE)}
    if what == ALL or what in known:
        return {name: (benchmark, benchmark.cases) for name, benchmark in known.items() if what in (ALL, name)}
    for name, benchmark in known.items():
        if what in benchmark.cases:
            return {name: (benchmark, (what,))}
    cases = [case for benchmark in known.values() for case in benchmark.cases]
    raise ConfigError(
        f"there is no benchmark {what!r}; there are: {', '.join((ALL, *known))}, and their cases: {', '.join(cases)}"
        f"{nearest(what, (ALL, *known, *cases))}"
    )


def show(rows: "list[Row]") -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("case", "rival", f"{OURS} s", "rival s", "ratio", "limit s", "peak MB", "rival MB", "weights MB")
    for column in shown.columns[2:]:
        column.justify = "right"
    for one in rows:
        of = one.to_dict()
        shown.add_row(
            one.case,
            one.rival,
            spread(one.ours_s),
            spread(one.rival_s),
            f"{one.ratio:.2f}",
            "-" if one.limit_s is None else f"{one.limit_s:.3g}",
            *(f"{of[key] / 1e6:,.0f}" if key in of else "-" for key in ("ours_bytes", "rival_bytes", "weights_bytes")),
        )
    Console(width=terminal_width(sys.stdout) or WIDTH).print(shown)


def spread(seconds: Sequence[float]) -> str:
    """The median, and from the least to the most."""
    return f"{median(seconds):.3g} ({min(seconds):.3g}-{max(seconds):.3g})"
