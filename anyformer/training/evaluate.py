"""`evaluate`: what a finished run is worth, on its own held-out data or on other data."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from typing_extensions import Unpack

from anyformer.core.errors import ConfigError, NumericalStop
from anyformer.data.corpus import text_data
from anyformer.models.load import How
from anyformer.training.finished import Finished
from anyformer.training.measure import measure
from anyformer.training.objectives.streams import StreamObjective
from anyformer.training.reading import Reading, read_through
from anyformer.training.scores import Result
from anyformer.training.train import give_guide
from anyformer.training.unchanged import refuse_other_guide, refuse_other_text


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    batches: int | None = None,
    reading: Reading | None = None,
    **how: Unpack[How],
) -> Result:
    """What a run is worth on its own held-out text, or on all of `data` (a file or a folder), in its own windows.

    data: is cut into documents as the run's text was. batches: only the first so many, of as many rows as in training.
    reading: another way to read the text, such as Sliding, in the place of blocks as in training. how: the run is
    opened, as in `load`.
    """
    done = Finished.open(run, **how)
    recipe, objective = done.recipe, done.objective
    if reading is not None:
        if not isinstance(objective, StreamObjective):
            raise ConfigError(f"{type(reading).__name__} reads running text; {run} is for {type(objective).__name__}")
        reading.check(done.model, done.tokenizers.target)
    if data is None and done.folder is None:
        raise ConfigError(f"{run} is a published checkpoint, with no held-out text of its own: name some, --data FILE")
    source = recipe.data if data is None else text_data(recipe.data).elsewhere(data)
    corpus = objective.corpus(source, recipe.seed, recipe.model, done.tokenizers)
    if data is None and done.folder is not None:
        refuse_other_text(done.folder, corpus)
    if reading is not None:
        result = read_through(reading, done.model, corpus, recipe.training, batches)
    else:
        if objective.guide is not None and objective.guide.measures and done.folder is not None:
            give_guide(done.model, recipe, corpus)
            refuse_other_guide(done.folder, done.model)
        result = measure(objective, done.model, corpus, recipe.training, batches, write=True)
    if not isfinite(result.metrics["loss"]):
        raise NumericalStop(f"the loss of {run} on this text is {result.metrics['loss']}: its weights are no use")
    return result
