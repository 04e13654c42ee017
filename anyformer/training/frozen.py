"""What is trained and what stays: by an adapter, or by paths that the recipe names."""

from __future__ import annotations

import torch

from anyformer.core.build import made
from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.core.paths import chosen
from anyformer.recipes.schema import Recipe


def freeze(model: Model, recipe: Recipe) -> None:
    """Turn gradients off for whatever the recipe does not train: it needs no gradient and no optimiser's state."""
    names, training = dict(model.named_parameters()), recipe.training
    kept = {*names} if recipe.adapt is None and not training.train else added(model, recipe)
    kept |= {*chosen(training.train, names, "training.train", "weight")}
    kept -= {*chosen(training.freeze, names, "training.freeze", "weight")}
    for name, parameter in names.items():
        parameter.requires_grad_(parameter.requires_grad and name in kept)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise ConfigError("training.freeze: nothing is left to be trained")


def added(model: Model, recipe: Recipe) -> set[str]:
    """The names of the weights that `adapt` adds to the recipe's model."""
    if recipe.adapt is None:
        return set()
    with torch.device("meta"):
        known = dict(made(recipe.model).named_parameters())
    return {name for name, _ in model.named_parameters() if name not in known}
