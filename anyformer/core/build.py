"""From a spec to a module: built without memory, then filled, each tensor from its own seed.

A tensor's numbers depend on (seed, path) alone, so that swapping one part leaves all other initial weights equal.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import torch

from anyformer.core.layer import Part
from anyformer.core.spec import ModelSpec, Site

if TYPE_CHECKING:
    from anyformer.core.model import Model


def build_model(spec: ModelSpec, seed: int, device: torch.device | str, dtype: torch.dtype | None) -> Model:
    """The model that `spec` declares, filled."""
    with torch.device("meta"):
        model = spec.make(site_of(spec))
    model.to_empty(device="cpu")
    if dtype is not None:
        model.to(dtype)
    fill_all(model, seed)
    return model.to(torch.device(device))


def site_of(spec: ModelSpec) -> Site:
    """The root's place: what every part may know of the model."""
    labels = frozenset(spec.labels) | ({"start"} if "document" in spec.labels else set())
    return Site("", spec.width, initial=spec.initial, vocabulary=spec.vocabulary, rank=spec.rank, labels=labels)


@torch.no_grad()
def fill_all(module: Part, seed: int) -> None:
    """Fill every parameter and buffer below `module`; one without a fill is an error."""
    for path, part in module.named_modules():
        fills = part.fills if isinstance(part, Part) else {}
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            address = f"{path}.{name}".lstrip(".")
            if name not in fills:
                raise ValueError(f"{address} has no fill; declare it by self.param or self.buffer")
            fills[name](tensor, torch.Generator().manual_seed(zlib.crc32(f"{seed} {address}".encode())))
