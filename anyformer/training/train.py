"""`train`: a recipe in, a run folder out."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from anyformer import __version__
from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.data.corpus import Corpus, build
from anyformer.data.tokenizer import TextTokenizer
from anyformer.recipes.read import read, write
from anyformer.recipes.schema import Recipe
from anyformer.runs.folder import RunFolder
from anyformer.training.budget import progress
from anyformer.training.loop import Report, Trainer
from anyformer.training.stop import StopRequest

MAY_CHANGE = ("budget", "evaluate", "snapshots")  # on resume: what does not change the steps already made


@dataclass(frozen=True)
class Trained:
    """path: the run folder. stopped: the signal that ended it early, or None. metrics: of the last evaluation."""

    path: Path
    model: Model
    steps: int
    stopped: int | None
    metrics: dict[str, float]


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    name: str = "run",
    resume: bool = False,
    device: str | None = None,
    report: Callable[[Report], None] = lambda report: None,
    note: Callable[[str], None] = lambda note: None,
) -> Trained:
    """Trains what the recipe says into the folder `out` (default runs/NAME-DATE).

    name: what a default folder is called after. resume: go on from the last snapshot in `out`, exactly; a finished run
    stays as it is. note: called with what a user should be told. Errors: ConfigError, InputError, ResourceError,
    NumericalStop.
    """
    settled = recipe if isinstance(recipe, Recipe) else read(recipe)
    path = Path(out) if out is not None else Path("runs") / f"{Path(name).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    going_on = resume and RunFolder.exists(path)
    if resume and not going_on:
        note(f"{path} holds no run yet: starting from the beginning")
    if settled.training.threads is not None:
        torch.set_num_threads(settled.training.threads)
    if going_on:
        with RunFolder.resume(path) as run:
            return _go_on(settled, run, device, report, note)
    corpus = build(settled.data, settled.seed)
    settled = with_vocabulary(settled, corpus)
    model = initial(settled, device)
    with RunFolder.create(
        path,
        spec=settled.model.to_dict(),
        recipe=write(settled),
        tokenizer=corpus.tokenizer.definition,
        info=_info(model, settled),
    ) as run:
        return _run(Trainer(settled, model, corpus, run, report), note)


def _go_on(
    recipe: Recipe, run: RunFolder, device: str | None, report: Callable[[Report], None], note: Callable[[str], None]
) -> Trained:
    before = read(run.recipe)
    tokenizer = TextTokenizer.read(run.tokenizer) if run.tokenizer is not None else None
    corpus = build(recipe.data, recipe.seed, tokenizer)
    recipe = with_vocabulary(recipe, corpus)
    _same(before, recipe, run.path)
    trainer = Trainer(recipe, initial(recipe, device), corpus, run, report)
    snapshot = run.latest_snapshot()
    for text in run.notes:
        note(text)
    run.notes.clear()
    if snapshot is None:
        note(f"{run.path} has no snapshot yet: starting from the beginning")
        run.rewind_metrics(0)
    else:
        trainer.restore(snapshot)
        note(f"going on from step {trainer.spent.steps}")
        if progress(recipe.budget, trainer.spent) >= 1:
            note(f"{run.path} is finished: its budget was used after {trainer.spent.steps} steps")
            run.write_weights(trainer.model.state_dict())
            return Trained(run.path, trainer.model, trainer.spent.steps, None, {})
    run.write("recipe.yaml", write(recipe).encode())
    return _run(trainer, note)


def _run(trainer: Trainer, note: Callable[[str], None]) -> Trained:
    with StopRequest() as asked:
        trainer.train(lambda: asked.signal is not None)
    for text in trainer.run.notes:
        note(text)
    metrics = trainer.latest[1].metrics if trainer.latest else {}
    return Trained(trainer.run.path, trainer.model, trainer.spent.steps, asked.signal, metrics)


def initial(recipe: Recipe, device: str | None) -> Model:
    """The model before the first step, on its device."""
    model = recipe.model.build(seed=recipe.seed, device=device or _device(recipe.training.device))
    if recipe.weights is not None:
        model.load_state_dict(RunFolder.open(recipe.weights).weights())
    return model


def with_vocabulary(recipe: Recipe, corpus: Corpus) -> Recipe:
    """The recipe with the model's vocabulary set from the tokenizer, or judged by it."""
    size, given = corpus.tokenizer.vocabulary, recipe.model.vocabulary
    if given is not None and given < size:
        raise ConfigError(
            f"model.vocabulary ({given}) is smaller than the tokenizer's ({size}); leave it out, or raise it"
        )
    return recipe if given is not None else replace(recipe, model=replace(recipe.model, vocabulary=size))


def _same(before: Recipe, after: Recipe, path: Path) -> None:
    """Refuse to go on with what would be another run."""
    old, new = before.to_dict(), after.to_dict()
    changed = [key for key in new if old.get(key) != new[key] and key not in MAY_CHANGE]
    if changed:
        raise ConfigError(
            f"{path} was made with other settings of {', '.join(changed)}; resume with the same, or take another --out"
        )


def _device(name: str) -> str:
    if name != "auto":
        return name
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else "cpu"


def _info(model: Model, recipe: Recipe) -> dict[str, Any]:
    """What a reader of the run wants to know of how it was made."""
    return {
        "anyformer": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "device": str(next(model.parameters()).device),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": recipe.seed,
        "command": sys.argv,
    }
