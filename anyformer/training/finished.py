"""A finished run, opened to be asked: its model, and what it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anyformer.core.errors import InputError
from anyformer.core.model import Model
from anyformer.data.corpus import Tokenizers
from anyformer.models.load import load, tokenizers_of
from anyformer.recipes.read import read
from anyformer.recipes.schema import Recipe
from anyformer.runs.folder import RunFolder
from anyformer.training.loop import objective_of
from anyformer.training.objectives.base import Objective


@dataclass(frozen=True)
class Finished:
    """A run that knows texts."""

    folder: RunFolder
    model: Model
    recipe: Recipe
    objective: Objective[Any]
    tokenizers: Tokenizers

    @staticmethod
    def open(run: str | Path, changes: Mapping[str, Any] | None, best: bool, device: str | torch.device) -> Finished:
        """changes, best, device: as in `load`."""
        model, folder = load(run, changes, device=device, best=best), RunFolder.open(run)
        tokenizers, recipe = tokenizers_of(folder), read(folder.recipe)
        if tokenizers is None:
            raise InputError(f"{run} has no tokenizer, so text cannot be read with it")
        return Finished(folder, model, recipe, objective_of(recipe), tokenizers)
