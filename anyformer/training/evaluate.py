"""`evaluate`: what a finished run is worth, on its own held-out data or on other data."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from anyformer.core.errors import InputError, NumericalStop
from anyformer.data.corpus import Corpus, text_data
from anyformer.models.load import load, tokenizers_of
from anyformer.recipes.read import read
from anyformer.runs.folder import RunFolder
from anyformer.training.loop import objective_of
from anyformer.training.measure import measure
from anyformer.training.scores import Result

ROWS = 32  # at a time


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    batches: int | None = None,
    best: bool = False,
    device: str | torch.device = "cpu",
) -> Result:
    """What a run is worth on its own held-out text, or on all of `data` (a file or a folder), in its own windows.

    data: is cut into documents as the run's text was. changes: to the declaration, as in `load`. batches: only the
    first so many, of 32 windows each. best: the weights that did best, not the last.
    """
    model = load(run, changes, device=device, best=best)
    folder = RunFolder.open(run)
    tokenizers, recipe = tokenizers_of(folder), read(folder.recipe)
    if tokenizers is None:
        raise InputError(f"{run} has no tokenizer, so text cannot be read with it")
    objective = objective_of(recipe)
    source = recipe.data if data is None else text_data(recipe.data).elsewhere(data)
    corpus = objective.corpus(source, recipe.seed, recipe.model, tokenizers)
    if data is None:
        refuse_other_text(folder, corpus)
    result = measure(objective, model, corpus, recipe.training, batches, ROWS, write=True)
    if not isfinite(result.metrics["loss"]):
        raise NumericalStop(f"the loss of {run} on this text is {result.metrics['loss']}: its weights are no use")
    return result


def refuse_other_text(run: RunFolder, corpus: Corpus[Any]) -> None:
    """A run's text may not change under it: what it was trained on could now be held out."""
    if run.info.get("data", corpus.fingerprint) != corpus.fingerprint:
        raise InputError(
            f"the text or its tokenizer is not what {run.path} was trained on; bring it back, or start a new run"
        )
