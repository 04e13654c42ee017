"""`evaluate`: what a finished run is worth, on its own held-out data or on other data."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from anyformer.core.errors import ConfigError, InputError, NumericalStop
from anyformer.data.corpus import Corpus, text_data
from anyformer.models.load import How
from anyformer.runs.folder import RunFolder
from anyformer.training.finished import Finished
from anyformer.training.measure import measure
from anyformer.training.scores import Result


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    batches: int | None = None,
    **how: Unpack[How],
) -> Result:
    """What a run is worth on its own held-out text, or on all of `data` (a file or a folder), in its own windows.

    data: is cut into documents as the run's text was. batches: only the first so many, of as many rows as in training.
    how: the run is opened, as in `load`.
    """
    done = Finished.open(run, **how)
    recipe, objective = done.recipe, done.objective
    if data is None and done.folder is None:
        raise ConfigError(f"{run} is a published checkpoint, with no held-out text of its own: name some, --data FILE")
    source = recipe.data if data is None else text_data(recipe.data).elsewhere(data)
    corpus = objective.corpus(source, recipe.seed, recipe.model, done.tokenizers)
    if data is None and done.folder is not None:
        refuse_other_text(done.folder, corpus)
    result = measure(objective, done.model, corpus, recipe.training, batches, write=True)
    if not isfinite(result.metrics["loss"]):
        raise NumericalStop(f"the loss of {run} on this text is {result.metrics['loss']}: its weights are no use")
    return result


def refuse_other_text(run: RunFolder, corpus: Corpus[Any]) -> None:
    """A run's text may not change under it: what it was trained on could now be held out."""
    if run.info.get("data", corpus.fingerprint) != corpus.fingerprint:
        raise InputError(
            f"the text or its tokenizer is not what {run.path} was trained on; bring it back, or start a new run"
        )
