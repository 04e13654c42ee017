"""`anyformer convert`: checkpoints in and out."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Option

from anyformer.cli.frame import Frame
from anyformer.core.errors import ConfigError

EXAMPLES = (
    "anyformer convert runs/demo exported --to hf",
    "anyformer convert published runs/mine --to anyformer",
)


def convert(
    ctx: Context,
    source: Annotated[Path, Argument(help="A run folder, or a published checkpoint.", metavar="SRC")],
    target: Annotated[Path, Argument(help="A folder or file that is not there yet.", metavar="DST")],
    to: Annotated[Literal["hf", "anyformer"], Option(help="Whose form DST has.")] = "hf",
    type: Annotated[
        str | None, Option(help="Of hf, the model_type; else the source's own, or the first that can say all.")
    ] = None,
    best: Annotated[bool, Option("--best", help="The weights that did best on held-out text, not the last.")] = False,
    set: Annotated[list[str] | None, Option(help="KEY=VALUE in the model, any number of times.")] = None,
    allow: Annotated[list[str] | None, Option(help="A key or tensor of SRC to go on without.")] = None,
) -> None:
    """Write a trained model as other programs read it, or what others trained as a run."""
    frame = Frame.of(ctx)
    if type is not None and to != "hf":
        raise ConfigError(f"--type is of --to hf, not of --to {to}")
    from anyformer.models.export import export_hf
    from anyformer.models.load import operated
    from anyformer.recipes.read import parse_set

    changes = dict(parse_set(change) for change in set or [])
    model, surgery, notes = operated(source, changes, best=best, allow=allow or ())
    for note in (*notes, *surgery.lines()):
        frame.say(note)
    if to == "hf":
        name = export_hf(model, target, type)
        frame.say(f"written as {name}")
    else:
        from anyformer.training.finished import write_run

        write_run(model, target)
    frame.put_json({"path": str(target)}) if frame.json else frame.put(str(target))
