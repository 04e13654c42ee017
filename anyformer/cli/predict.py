"""`anyformer predict`: an answer for every line of a file, as JSON lines."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context

from anyformer.cli.frame import Frame
from anyformer.cli.lines import FILE, Lines
from anyformer.cli.opening import Allow, Best, Dtype, Set, Surgery, fetched, how, report
from anyformer.core.errors import InputError, NumericalStop

EXAMPLES = (
    "anyformer predict runs/sst2 reviews.txt",
    "anyformer predict runs/sst2 pairs.jsonl > answers.jsonl",
)


def predict(
    ctx: Context,
    run: Annotated[Path, Argument(help="A run folder, or a published checkpoint.", metavar="RUN")],
    file: Annotated[str, Argument(help=FILE, metavar="FILE")],
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
    run = fetched(frame, run)
    if surgery is not None:
        report(frame, run, opening)
        return
    lines = Lines.of(file)
    from anyformer.training.predict import predictor

    for where, answer in lines.told(frame, predictor(run, **opening).answers(lines.rows())):
        try:
            frame.put_json({"error": str(answer)} if isinstance(answer, InputError) else answer)
        except ValueError:
            raise NumericalStop(f"{where}: the answer is no number: the run's weights are no use") from None
    lines.end(frame)
