"""`train`: a recipe in, a run folder out."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from anyformer import __version__
from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.data.corpus import Corpus, build
from anyformer.models.load import fill, tokenizer_of
from anyformer.recipes.read import read, write
from anyformer.recipes.schema import Recipe
from anyformer.runs.folder import RunFolder
from anyformer.training.evaluate import refuse_other_text
from anyformer.training.loop import Report, Trainer
from anyformer.training.stop import StopRequest

MAY_CHANGE = ("budget", "evaluate", "snapshots")  # on resume: what does not change the steps already made


@dataclass(frozen=True)
class Trained:
    """path: the run folder. model: as it is now, with its tokenizer, ready to read and write.

    tokens_per_s: of the whole run, pauses left out. stopped: the signal that ended it early, or None. metrics: of the
    last evaluation, {} where there was none.
    """

    path: Path
    model: Model
    steps: int
    tokens_per_s: float
    stopped: int | None
    metrics: dict[str, float]


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    name: str = "run",
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    report: Callable[[Report], None] = lambda report: None,
    note: Callable[[str], None] = lambda note: None,
) -> Trained:
    """Trains what the recipe says into the folder `out` (default runs/NAME-DATE).

    name: what a default folder is called after. resume: go on from the last snapshot in `out`, exactly; a finished run
    stays as it is; where there is none, start from the beginning. device, threads: instead of the recipe's. report:
    called after every step, evaluation and snapshot. note: called with what a user should be told. Errors: ConfigError,
    InputError, ResourceError, NumericalStop.
    """
    settled = recipe if isinstance(recipe, Recipe) else read(recipe)
    if resume and out is None:
        raise ConfigError("say which run to go on with: --resume needs --out RUN")
    path = Path(out) if out is not None else Path("runs") / f"{Path(name).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    going_on = resume and RunFolder.exists(path)
    if resume and not going_on:
        note(f"{path} holds no run yet: starting from the beginning")
    if (threads := threads or settled.training.threads) is not None:
        torch.set_num_threads(threads)
    if going_on:
        with RunFolder.resume(path) as run:
            return _go_on(settled, run, device, report, note)
    source = None if settled.weights is None else RunFolder.open(settled.weights)
    corpus = build(settled.data, settled.seed, None if source is None else tokenizer_of(source))
    settled = with_vocabulary(settled, corpus)
    model = untrained(settled, corpus, device)
    if source is not None:
        fill(model, source.weights(), str(source.path))
    trainer = Trainer(settled, model, corpus, report)
    with RunFolder.create(
        path,
        spec=settled.model.to_dict(),
        recipe=write(settled),
        tokenizer=corpus.tokenizer.definition,
        info=_info(model, settled, corpus),
    ) as run:
        return _run(trainer, run, note)


def _go_on(
    recipe: Recipe, run: RunFolder, device: str | None, report: Callable[[Report], None], note: Callable[[str], None]
) -> Trained:
    before = read(run.recipe)
    if recipe.model.vocabulary is None:
        recipe = replace(recipe, model=replace(recipe.model, vocabulary=before.model.vocabulary))
    _refuse_another(before, recipe, run.path)
    corpus = build(recipe.data, recipe.seed, tokenizer_of(run))
    refuse_other_text(run, corpus)
    trainer = Trainer(recipe, untrained(recipe, corpus, device), corpus, report)
    snapshot = run.latest_snapshot()
    _tell(run, note)
    if snapshot is None:
        note(f"{run.path} has no snapshot yet: starting from the beginning")
        if recipe.weights is not None:
            fill(trainer.model, RunFolder.open(recipe.weights).weights(), recipe.weights)
        run.rewind_metrics(0)
    else:
        trainer.restore(snapshot)
        run.rewind_metrics(snapshot.step)
        run.write_weights(trainer.model.state_dict())  # a kill between the two leaves older ones
        if trainer.finished:
            note(f"{run.path} is finished: its budget was used after {snapshot.step} steps")
            return _trained(trainer, run, None)
        note(f"going on from step {snapshot.step}")
        for what, before, now in _changed_machine(run, trainer.model):
            note(
                f"this run was begun with {what} {before} and goes on with {now}: sums may be rounded in another order"
            )
    run.write("recipe.yaml", write(recipe).encode())
    return _run(trainer, run, note)


def _run(trainer: Trainer, run: RunFolder, note: Callable[[str], None]) -> Trained:
    with StopRequest() as asked:
        trainer.train(run, lambda: asked.signal is not None)
    _tell(run, note)
    return _trained(trainer, run, asked.signal)


def _trained(trainer: Trainer, run: RunFolder, stopped: int | None) -> Trained:
    spent, metrics = trainer.spent, trainer.latest.metrics if trainer.latest else {}
    rate = spent.tokens / max(spent.seconds, 1e-9)
    return Trained(run.path, trainer.model.eval(), spent.steps, rate, stopped, metrics)


def _tell(run: RunFolder, note: Callable[[str], None]) -> None:
    for text in run.notes:
        note(text)
    run.notes.clear()


def untrained(recipe: Recipe, corpus: Corpus, device: str | None) -> Model:
    """The declared model with its first weights and its tokenizer, on its device."""
    model = recipe.model.build(seed=recipe.seed, device=device or _device(recipe.training.device))
    model.tokenizer = corpus.tokenizer
    return model


def with_vocabulary(recipe: Recipe, corpus: Corpus) -> Recipe:
    """The recipe with the model's vocabulary set from the tokenizer, or judged by it."""
    size, given = corpus.tokenizer.vocabulary, recipe.model.vocabulary
    if given is not None and given < size:
        raise ConfigError(
            f"model.vocabulary ({given}) is smaller than the tokenizer's ({size}); leave it out, or raise it"
        )
    return recipe if given is not None else replace(recipe, model=replace(recipe.model, vocabulary=size))


def _refuse_another(before: Recipe, after: Recipe, path: Path) -> None:
    """Refuse to go on with what would be another run."""
    old, new = ({k: v for k, v in recipe.to_dict().items() if k not in MAY_CHANGE} for recipe in (before, after))
    if changed := list(_differences(old, new)):
        raise ConfigError(
            f"{path} was made with other settings of {', '.join(changed)}; resume with the same, or take another --out"
        )


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The paths of what differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(old.keys() - new.keys())]:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path


def _changed_machine(run: RunFolder, model: Model) -> Iterator[tuple[str, object, object]]:
    """(what, before, now) of what a run was begun with and bit for bit equality needs."""
    for what, now in _arithmetic(model).items():
        if (before := run.info.get(what, now)) != now:
            yield what, before, now


def _device(name: str) -> str:
    if name != "auto":
        return name
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else "cpu"


def _info(model: Model, recipe: Recipe, corpus: Corpus) -> dict[str, Any]:
    """What a reader of the run wants to know of how it was made."""
    return {
        "anyformer": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        **_arithmetic(model),
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": corpus.fingerprint,
        "seed": recipe.seed,
        "command": sys.argv,
    }


def _arithmetic(model: Model) -> dict[str, Any]:
    """What decides in which order sums are rounded."""
    return {
        "torch": torch.__version__,
        "device": next(model.parameters()).device.type,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    """The commit of the checkout that this code runs from; None where it was installed, or there is no git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # an environment may lie in somebody else's checkout
        return None
    try:
        asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
