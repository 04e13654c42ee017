"""`anyformer train`: a recipe in, a run folder out."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Exit, Option

from anyformer.cli.frame import Frame
from anyformer.core.errors import ConfigError

if TYPE_CHECKING:
    from anyformer.recipes.schema import Recipe
    from anyformer.training.loop import Report

EXAMPLES = (
    "anyformer train demo --out runs/demo",
    "anyformer train shakespeare --set optimizer.lr=1e-3 --set 'model.body.blocks.*.mixer.position=alibi'",
)
PLAIN = {"budget": {"steps": 2000}, "schedule": {"kind": "cosine", "warmup": 100}}  # of --data and --model


def train(
    ctx: Context,
    recipe: Annotated[str | None, Argument(help="A recipe file, or the name of one that ships.")] = None,
    out: Annotated[Path | None, Option(help="The run folder to make; runs/NAME-DATE unless given.")] = None,
    set: Annotated[list[str] | None, Option(help="KEY=VALUE in the recipe, any number of times.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with the run in --out, exactly.")] = False,
    tensorboard: Annotated[bool, Option("--tensorboard", help="Also write curves for TensorBoard.")] = False,
    data: Annotated[str | None, Option(help="Instead of a recipe: text files or a folder of them.")] = None,
    model: Annotated[str | None, Option(help="Instead of a recipe: the name of a preset.")] = None,
) -> None:
    """Train a recipe, or go on with a run; Ctrl-C saves first, a second one stops at once."""
    frame = Frame.of(ctx)
    settled = chosen(recipe, out, set or [], resume, data, model)  # judged before torch is imported, where it can be
    device = frame.torch_device(settled.training.device)
    from anyformer.training.train import train as run

    with Progress(frame) as progress:
        done = run(
            settled,
            out,
            name=recipe or model or "run",
            resume=resume,
            device=str(device),
            threads=frame.threads,
            tensorboard=tensorboard,
            report=progress,
            note=frame.say,
        )
    if frame.json:
        figures_of = {"steps": done.steps, "tokens_per_s": done.tokens_per_s, "metrics": done.metrics}
        frame.put_json({"run": str(done.path), **figures_of, "stopped": done.stopped})
    else:
        frame.say(f"{done.steps} steps at {done.tokens_per_s:,.0f} tokens/s; {figures(done.metrics)}the run is in")
        frame.put(str(done.path))
    if done.stopped is not None:
        frame.say(f"stopped on request; go on with: anyformer train --resume --out {quote(str(done.path))}")
        raise Exit(128 + done.stopped)


def chosen(
    recipe: str | None, out: Path | None, sets: list[str], resume: bool, data: str | None, model: str | None
) -> "Recipe":
    """What is to be trained: a recipe; a text and a preset; or what the run that goes on was made from."""
    from anyformer.recipes.read import read

    if (data is not None or model is not None) and recipe is None:
        if data is None or model is None:
            raise ConfigError("without a recipe give both --data and --model, as in --data my.txt --model llama-tiny")
        tree: dict[str, Any] = {"model": {"preset": model}, "data": {"kind": "text", "path": data}, **PLAIN}
        return read(tree, sets)
    if data is not None or model is not None:
        raise ConfigError("give a recipe, or --data and --model, not both; --set data.path=… changes a recipe's text")
    if recipe is not None:
        return read(recipe, sets)
    if not resume or out is None:
        raise ConfigError("say what to train: a recipe, or --data and --model, or --resume with --out RUN")
    from anyformer.runs.folder import RunFolder

    return read(RunFolder.open(out).recipe, sets)


class Progress:
    """A bar for who watches; else a line for each evaluation and snapshot."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.bar = self.task = None

    def __enter__(self) -> "Progress":
        if self.frame.bar:
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                progress.TextColumn("step {task.fields[step]}"),
                progress.BarColumn(),
                progress.TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:,.0f} tokens/s"),
                progress.TextColumn("MFU {task.fields[mfu]:.0%}"),
                progress.TimeRemainingColumn(elapsed_when_finished=True),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0, step=0, loss=float("nan"), rate=0.0, mfu=0.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, report: "Report") -> None:
        if self.bar is not None and self.task is not None and report.values:
            values = report.values
            self.bar.update(
                self.task,
                completed=report.progress,
                step=report.step,
                loss=values["loss"],
                rate=values["tokens_per_s"],
                mfu=values["mfu"],
            )
        if report.evaluation is not None:
            self.say(f"step {report.step}: {figures(report.evaluation.metrics)}on held-out text")
        if report.saved is not None:
            self.say(f"step {report.step}: saved {report.saved}")

    def say(self, message: str) -> None:
        """A message, above the bar where there is one."""
        if self.bar is not None:
            self.bar.console.print(message, markup=False, highlight=False)
        else:
            self.frame.say(message)


def figures(metrics: dict[str, float]) -> str:
    """A few figures in words."""
    return "".join(f"{name.replace('_', ' ')} {value:.4f}, " for name, value in metrics.items())
