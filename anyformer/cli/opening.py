"""The options of verbs that open a trained model, and what becomes of its weights under `--set`."""

from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from anyformer.cli.frame import Frame

if TYPE_CHECKING:
    from pathlib import Path

    from anyformer.models.load import How

Best = Annotated[bool, Option("--best", help="The weights that did best on held-out data, not the last.")]
Set = Annotated[list[str] | None, Option(help="KEY=VALUE in the model, any number of times.")]
Allow = Annotated[
    list[str] | None, Option(help="A key or a tensor of a published checkpoint to go on without, any number of times.")
]
Dtype = Annotated[
    Literal["float64", "float32", "bfloat16", "float16"] | None,
    Option(help="In which numbers to compute; else those of the weights."),
]
Surgery = Annotated[
    Literal["report"] | None,
    Option(help="report: only say which weights --set keeps, which are new and which are dropped."),
]


def fetched(frame: Frame, run: "Path", pickles: bool = False) -> "Path":
    """Where a run is; of one that is named as on the hub, the folder in its cache, and its commit is told."""
    if run.exists():
        return run
    from anyformer.models.hub import located

    path = located(run, pickles=pickles, bar=frame.bar)
    frame.say(f"{run}: commit {path.name}")
    return path


def how(frame: Frame, best: bool, set: list[str] | None, allow: list[str] | None, dtype: str | None) -> "How":
    """What the options say of how a model is opened."""
    from anyformer.recipes.read import parse_set

    changes = dict(parse_set(change) for change in set or [])
    device = frame.torch_device()
    import torch

    known = None if dtype is None else getattr(torch, dtype)
    return {"changes": changes, "best": best, "allow": tuple(allow or ()), "dtype": known, "device": device}


def report(frame: Frame, run: "Path", opening: "How") -> None:
    """What becomes of the weights; nothing is computed."""
    from anyformer.models.load import operated
    from anyformer.models.surgery import Surgery

    _, surgery, _ = operated(run, **opening)
    if frame.json:
        frame.put_json({"kept": surgery.kept, "new": surgery.new, "dropped": surgery.dropped})
        return
    whole = surgery == Surgery(surgery.kept, (), ())
    for line in (f"kept: {'all ' if whole else ''}{len(surgery.kept)} weights", *surgery.lines()):
        frame.put(line)
