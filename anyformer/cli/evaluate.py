"""`anyformer evaluate`: what a run is worth on text it has not seen."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from anyformer.cli.frame import Frame
from anyformer.cli.opening import Allow, Best, Dtype, Set, Surgery, how, report

EXAMPLES = (
    "anyformer evaluate runs/demo",
    "anyformer evaluate runs/demo --data my.txt --json",
)


def evaluate(
    ctx: Context,
    run: Annotated[Path, Argument(help="A run folder, or a published checkpoint.", metavar="RUN")],
    data: Annotated[str | None, Option(help="Text to read instead of the run's own held-out text.")] = None,
    batches: Annotated[int | None, Option(min=1, help="Only the first so many batches.")] = None,
    best: Best = False,
    set: Set = None,
    allow: Allow = None,
    dtype: Dtype = None,
    surgery: Surgery = None,
) -> None:
    """Measure loss, perplexity, bits per byte, accuracy: what the objective has, each with its 95 % interval."""
    frame = Frame.of(ctx)
    opening = how(frame, best, set, allow, dtype)
    if surgery is not None:
        report(frame, run, opening)
        return
    from anyformer.training.evaluate import evaluate as measure

    result = measure(run, data, batches=batches, **opening)
    if frame.json:
        frame.put_json({"metrics": result.metrics, "intervals": result.intervals, **result.counts})
        return
    rows = []
    for name, value in result.metrics.items():
        low, high = result.intervals.get(name, (value, value))
        rows.append((name.replace("_", " "), f"{value:.4f}", f"{low:.4f} to {high:.4f}"))
    measured = ", ".join(f"{count:,} {what}" for what, count in result.counts.items())
    frame.put_table(rows, ("", f"of {measured}", "95 % interval"))
