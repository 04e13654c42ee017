"""LoRA (Hu et al. 2021): beside a linear map, a product of two narrow matrices is learned.

y = W x + b + (alpha / R) B A drop(x),  A (R, in) drawn at random, B (out, R) zero: at first nothing is changed
merged: W' = W + (alpha / R) B A
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.errors import ConfigError
from anyformer.core.fills import uniform, zeros
from anyformer.core.linear import Beside, Linear
from anyformer.core.model import Model
from anyformer.core.paths import chosen
from anyformer.core.spec import AdapterSpec, Fraction, ModelSpec, Positive, Site, Size, spec

M = TypeVar("M", bound=ModelSpec)


@spec
class LoRA(AdapterSpec):
    """Two narrow matrices beside linear maps (Hu et al. 2021).

    on: paths of the maps, or of parts above them: `body.blocks.*.mixer.q`, `body.blocks.4-7`. rank: R. alpha: how much
    is added, over R. dropout: of what the narrow matrices read.
    """

    on: Annotated[tuple[str, ...], Field(min_length=1)]
    rank: Size = 8
    alpha: Positive = 16.0
    dropout: Fraction = 0.0

    def attach(self, model: Model) -> None:
        maps = {path: part for path, part in model.named_modules() if isinstance(part, Linear)}
        for path in chosen(self.on, maps, "lora.on", "linear map"):
            if maps[path].adapter is not None:
                raise ConfigError(f"lora.on: {path} has an adapter already; merge it first, or choose other maps")
            maps[path].adapter = LowRank(self, maps[path])


class LowRank(Beside):
    """a: (R, in), b: (out, R)."""

    a: Tensor
    b: Tensor

    def __init__(self, spec: LoRA, beside: Linear) -> None:
        out, into = beside.axes["weight"]
        super().__init__(Site(f"{beside.path}.adapter", beside.weight.shape[1]))
        self.scale, self.dropout = spec.alpha / spec.rank, spec.dropout
        sizes = {**beside.sizes, "rank": spec.rank}  # a map may have an R of its own
        self.param("a", ("rank", into), sizes, uniform(beside.weight.shape[1] ** -0.5))  # as the authors' code does
        self.param("b", (out, "rank"), sizes, zeros)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return F.linear(F.linear(F.dropout(x, self.dropout, self.training), self.a), self.b) * self.scale

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.b.to(dtype) @ self.a.to(dtype) * self.scale


@dataclass(frozen=True)
class Merged:
    """What `unmerge` puts back: the weights as they were, bit for bit, the adapters, and the declarations."""

    weights: Mapping[str, Tensor]
    adapters: Mapping[str, LowRank]
    specs: Mapping[str, ModelSpec]


@torch.no_grad()
def merge(model: Model) -> Merged:
    """Add what every LoRA has learned to its map's weight; the model and its declaration are then plain, and as fast.

    Sums are rounded once. What is returned holds the old weights: `unmerge` needs them; drop it to free their memory.
    """
    weights, adapters, specs = {}, {}, {}
    for path, part in model.named_modules():
        if isinstance(part, Linear) and isinstance(part.adapter, LowRank):
            weights[path], adapters[path] = part.weight.data, part.adapter
            part.weight.data = (part.weight.double() + part.adapter.matrix(torch.float64)).to(part.weight)
            part.adapter = None
        elif isinstance(part, Model):
            specs[path], part.spec = part.spec, without_lora(part.spec)
    return Merged(weights, adapters, specs)


def unmerge(model: Model, merged: Merged) -> None:
    """The model as it was before `merge`."""
    for path, adapter in merged.adapters.items():
        part = model.get_submodule(path)
        assert isinstance(part, Linear)
        part.weight.data, part.adapter = merged.weights[path], adapter
    for path, declared in merged.specs.items():
        part = model.get_submodule(path)
        assert isinstance(part, Model)
        part.spec = declared


def without_lora(declared: M) -> M:
    """The declaration of a model whose LoRAs are merged, the models within it included."""
    parts = {name: getattr(declared, name) for name in declared.fields()}
    inner = {name: without_lora(part) for name, part in parts.items() if isinstance(part, ModelSpec)}
    return replace(declared, adapters=tuple(one for one in declared.adapters if not isinstance(one, LoRA)), **inner)
