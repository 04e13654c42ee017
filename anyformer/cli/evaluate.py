"""`anyformer evaluate`: what a run is worth on text it has not seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Context, Option

from anyformer.cli.frame import Frame
from anyformer.cli.opening import Allow, Best, Dtype, Set, Surgery, fetched, how, report
from anyformer.core.errors import ConfigError

if TYPE_CHECKING:
    from anyformer.training.reading import Reading

EXAMPLES = (
    "anyformer evaluate runs/demo",
    "anyformer evaluate runs/demo --data my.txt --window 128 --stride 32 --json",
)


def evaluate(
    ctx: Context,
    run: Annotated[Path, Argument(help="A run folder, or a published checkpoint.", metavar="RUN")],
    data: Annotated[str | None, Option(help="Text to read instead of the run's own held-out text.")] = None,
    batches: Annotated[int | None, Option(min=1, help="Only the first so many batches.")] = None,
    window: Annotated[
        int | None, Option(help="Score each token with those before it in a window of so many, document by document.")
    ] = None,
    stride: Annotated[
        int | None, Option(help="How far the window moves, so that each token has at least W - S before it; else W/2.")
    ] = None,
    stream: Annotated[
        bool, Option("--stream", help="Score each token with all of its document before it, on a state.")
    ] = False,
    pseudo: Annotated[
        Literal["token", "word"] | None,
        Option(help="Of an encoder: hide each token alone, or with what follows it in its word, and score it."),
    ] = None,
    best: Best = False,
    set: Set = None,
    allow: Allow = None,
    dtype: Dtype = None,
    surgery: Surgery = None,
) -> None:
    """Measure loss, perplexity, bits per byte, accuracy: what the objective has, each with its 95 % interval."""
    frame = Frame.of(ctx)
    reading = reading_of(window, stride, stream, pseudo)
    opening = how(frame, best, set, allow, dtype)
    run = fetched(frame, run)
    if surgery is not None:
        report(frame, run, opening)
        return
    from anyformer.training.evaluate import evaluate as measure

    result = measure(run, data, batches=batches, reading=reading, **opening)
    if frame.json:
        frame.put_json({"metrics": result.metrics, "intervals": result.intervals, **result.counts})
        return
    rows = []
    for name, value in result.metrics.items():
        low, high = result.intervals.get(name, (value, value))
        rows.append((name.replace("_", " "), f"{value:.4f}", f"{low:.4f} to {high:.4f}"))
    measured = ", ".join(f"{count:,} {what}" for what, count in result.counts.items())
    frame.put_table(rows, ("", f"of {measured}", "95 % interval"))


def reading_of(window: int | None, stride: int | None, stream: bool, pseudo: str | None) -> "Reading | None":
    """How the options want the text to be read; None: in blocks, as the run was trained."""
    if stride is not None and (window is None or pseudo):
        raise ConfigError(
            "--stride is how far a window moves over what a decoder reads: give --window too, no --pseudo"
        )
    if stream and (window is not None or pseudo):
        raise ConfigError("--stream reads whole documents, as a decoder does: leave out --window and --pseudo")
    if pseudo is not None:
        from anyformer.training.pseudo import Pseudo

        return Pseudo(window, words=pseudo == "word")
    if window is not None:
        from anyformer.training.sliding import Sliding

        return Sliding(window, max(1, window // 2) if stride is None else stride)
    if stream:
        from anyformer.training.streaming import Streaming

        return Streaming()
    return None
