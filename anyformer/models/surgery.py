"""Swapping parts of a trained model: what has a weight of the same name and shape keeps it, and the rest is told.

New weights begin as the declaration says, from (seed, path) alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from anyformer.core.build import blank_model, fill_all
from anyformer.core.errors import ConfigError
from anyformer.core.explain import explain, ranges
from anyformer.core.model import Model
from anyformer.core.overrides import override
from anyformer.core.roles import AnyModel
from anyformer.core.spec import ModelSpec, from_dict


@dataclass(frozen=True)
class Surgery:
    """kept, new, dropped: names of weights. One whose shape is another is dropped and new."""

    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    @staticmethod
    def of(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Surgery:
        """What becomes of some weights in a model that has others."""
        kept = {name for name in before.keys() & after.keys() if before[name].shape == after[name].shape}
        return Surgery(*(tuple(sorted(names)) for names in (kept, after.keys() - kept, before.keys() - kept)))

    def lines(self) -> list[str]:
        """What a user should know before anything runs; numbers of layers are drawn together."""
        return [f"new: {name}" for name in together(self.new)] + [f"dropped: {name}" for name in together(self.dropped)]


def together(names: Iterable[str]) -> list[str]:
    """Names that differ in a layer's number alone, as one: `body.blocks.0-4.mixer.q.weight`."""
    found: dict[tuple[str, ...], list[int]] = {}
    for name in names:
        steps = name.split(".")
        at = next((index for index, step in enumerate(steps) if step.isdecimal()), None)
        key = tuple(steps) if at is None else (*steps[:at], "", *steps[at + 1 :])
        found.setdefault(key, []).extend([] if at is None else [int(steps[at])])
    return [".".join(step or ranges(numbers) for step in key) for key, numbers in found.items()]


def changed_spec(spec: ModelSpec, changes: Mapping[str, Any]) -> ModelSpec:
    """A declaration with some values set by their paths."""
    tree: Any = spec.to_dict()
    for path, value in changes.items():
        tree = override(tree, path, value, AnyModel)
    try:
        return from_dict(AnyModel, tree)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def operate(spec: ModelSpec, tensors: Mapping[str, Tensor], dtype: torch.dtype, seed: int = 0) -> tuple[Model, Surgery]:
    """A model of `spec` with all of the tensors that fit it, themselves and not copies, and what became of all."""
    model = blank_model(spec, dtype)
    places = model.state_dict()
    surgery = Surgery.of(tensors, places)
    if not surgery.kept:
        raise ConfigError("none of the weights fits what the model is changed to; train such a model anew")
    for name in surgery.kept:
        _put(model, name, tensors[name].to(dtype))
    for name in surgery.new:
        _put(model, name, torch.empty(places[name].shape, dtype=dtype))
    fill_all(model, seed, surgery.new)
    return model, surgery


def _put(model: Model, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    part = model.get_submodule(path)
    if leaf in part._parameters:
        part.register_parameter(leaf, nn.Parameter(tensor))
    else:
        part.register_buffer(leaf, tensor)
