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
from anyformer.data.corpus import Corpus, Tokenizers
from anyformer.models.checkpoint import Checkpoint, open_checkpoint, tokenizers_of
from anyformer.models.given import fill_given
from anyformer.models.load import give_tokenizers, load
from anyformer.models.surgery import Surgery
from anyformer.models.texts import text_info
from anyformer.recipes.read import read, write
from anyformer.recipes.schema import Recipe
from anyformer.runs.folder import RunFolder
from anyformer.training.board import board
from anyformer.training.frozen import added, freeze
from anyformer.training.loop import Report, Trainer, objective_of
from anyformer.training.stop import StopRequest
from anyformer.training.unchanged import guide_hash, refuse_other_guide, refuse_other_text

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
    tensorboard: bool = False,
    report: Callable[[Report], None] = lambda report: None,
    note: Callable[[str], None] = lambda note: None,
) -> Trained:
    """Trains what the recipe says into the folder `out` (default runs/NAME-DATE).

    name: what a default folder is called after. resume: go on from the last snapshot in `out`, exactly; a finished run
    stays as it is; where there is none, start from the beginning. device, threads: instead of the recipe's.
    tensorboard: also write curves for it into the run. report: called after every step, evaluation and snapshot. note:
    called with what a user should be told. Errors: ConfigError, InputError, ResourceError, NumericalStop.
    """
    settled = recipe if isinstance(recipe, Recipe) else read(recipe)
    if resume and out is None:
        raise ConfigError("say which run to go on with: --resume needs --out RUN")
    path = Path(out) if out is not None else Path("runs") / f"{Path(name).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    if tensorboard:
        report = board(path, report)
    going_on = resume and RunFolder.exists(path)
    if resume and not going_on:
        note(f"{path} holds no run yet: starting from the beginning")
    if (threads := threads or settled.training.threads) is not None:
        torch.set_num_threads(threads)
    if going_on:
        with RunFolder.resume(path) as run:
            return _go_on(settled, run, device, report, note)
    source = source_of(settled)
    settled, corpus = prepared(settled, None if source is None else source.tokenizers)
    model = untrained(settled, corpus, device)
    first_weights(model, settled, corpus, source, note)
    give_guide(model, settled, corpus)
    trainer = Trainer(settled, model, corpus, report)
    with RunFolder.create(
        path,
        spec=settled.adapted.to_dict(),
        recipe=write(settled),
        tokenizer=corpus.tokenizer.definition,
        source_tokenizer=None if corpus.tokenizers.source is None else corpus.tokenizers.source.definition,
        chat_template=None if corpus.tokenizer.chat is None else corpus.tokenizer.chat.source,
        info=_info(model, settled, corpus),
    ) as run:
        return _run(trainer, run, note)


def _go_on(
    recipe: Recipe, run: RunFolder, device: str | None, report: Callable[[Report], None], note: Callable[[str], None]
) -> Trained:
    before = read(run.recipe)
    _refuse_another(before, recipe, run.path, known=False)
    recipe, corpus = prepared(recipe, tokenizers_of(run))
    _refuse_another(before, recipe, run.path)
    refuse_other_text(run, corpus)
    snapshot, model = run.latest_snapshot(), untrained(recipe, corpus, device)
    _tell(run, note)
    if snapshot is None:
        note(f"{run.path} has no snapshot yet: starting from the beginning")
        first_weights(model, recipe, corpus, source_of(recipe), note)
    give_guide(model, recipe, corpus)
    refuse_other_guide(run, model)
    trainer = Trainer(recipe, model, corpus, report)
    if snapshot is None:
        run.rewind_metrics(0)
    else:
        trainer.restore(snapshot)
        run.rewind_metrics(snapshot.step)
        run.write_weights(trainer.weights(run))  # a kill between the two leaves older ones
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
    if (mean := trainer.averaged(run)) is not None:
        trainer.model.load_state_dict(dict(mean))
    trainer.model.guide = ()  # it has served
    return Trained(run.path, trainer.model.eval(), spent.steps, rate, stopped, metrics)


def _tell(run: RunFolder, note: Callable[[str], None]) -> None:
    for text in run.notes:
        note(text)
    run.notes.clear()


def prepared(recipe: Recipe, tokenizers: Tokenizers | None = None) -> tuple[Recipe, Corpus[Any]]:
    """The data, encoded, and the recipe with what only the data knows."""
    objective = objective_of(recipe)
    corpus = objective.corpus(recipe.data, recipe.seed, recipe.model, tokenizers)
    return replace(recipe, model=objective.completed(recipe.model, corpus)), corpus


def untrained(recipe: Recipe, corpus: Corpus[Any], device: str | None) -> Model:
    """The declared model with its first weights and its tokenizer, on its device."""
    model = recipe.adapted.build(seed=recipe.seed, device=device or _device(recipe.training.device))
    give_tokenizers(model, corpus.tokenizers)
    freeze(model, recipe)
    return model


def source_of(recipe: Recipe) -> Checkpoint | None:
    """The trained model that a new run begins with."""
    return None if recipe.weights is None else open_checkpoint(recipe.weights)


def first_weights(
    model: Model, recipe: Recipe, corpus: Corpus[Any], source: Checkpoint | None, note: Callable[[str], None]
) -> None:
    """What a new run begins with, where the declaration does not say it all: another's weights, given vectors.

    Weights of the source that have no place here, and those here that it lacks, are told; what `adapt` adds is not.
    """
    if source is not None:
        surgery = Surgery.of(source.tensors, model.state_dict())
        model.load_state_dict({name: source.tensors[name] for name in surgery.kept}, strict=False)
        new = tuple(sorted({*surgery.new} - added(model, recipe)))
        for text in (*source.notes, *replace(surgery, new=new).lines()):
            note(text)
    elif missing := fill_given(model, corpus.tokenizers.target, corpus.tokenizers.source):
        note(missing)
    if recipe.adapt is not None:
        recipe.adapt.begin(model, recipe.seed)


def give_guide(model: Model, recipe: Recipe, corpus: Corpus[Any]) -> None:
    """Open what the objective looks at beside the model, frozen."""
    asked = objective_of(recipe).guide
    if asked is None:
        return
    device = next(model.parameters()).device
    if asked.path is not None:
        guide = load(asked.path, device=device)
    else:
        guide = untrained(recipe, corpus, str(device))
        first_weights(guide, recipe, corpus, source_of(recipe), lambda note: None)
    model.guide = (guide.requires_grad_(False).eval(),)


def _refuse_another(before: Recipe, after: Recipe, path: Path, known: bool = True) -> None:
    """Refuse to go on with what would be another run. known: what the data alone says is in both of them."""
    old, new = ({k: v for k, v in recipe.to_dict().items() if k not in MAY_CHANGE} for recipe in (before, after))
    if changed := [name for name, value in _differences(old, new) if known or value is not None]:
        raise ConfigError(
            f"{path} was made with other settings of {', '.join(changed)}; resume with the same, or take another --out"
        )


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The paths of what differs, and what is new there."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(old.keys() - new.keys())]:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, new


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


def _info(model: Model, recipe: Recipe, corpus: Corpus[Any]) -> dict[str, Any]:
    """What a reader of the run wants to know of how it was made."""
    return {
        "anyformer": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        **_arithmetic(model),
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": corpus.fingerprint,
        "guide": guide_hash(model),
        **text_info(corpus.tokenizer),
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
