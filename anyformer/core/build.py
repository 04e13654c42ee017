"""From a spec to a module: built without memory, then filled, each tensor from its own seed.

A tensor's numbers depend on (seed, path) alone, so that swapping one part leaves all other initial weights equal.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

import torch

from anyformer.core.layer import Part
from anyformer.core.model import Model
from anyformer.core.spec import ModelSpec, Site


def build_model(spec: ModelSpec, seed: int, device: torch.device | str, dtype: torch.dtype | None) -> Model:
    """The model that `spec` declares, filled."""
    with torch.device("meta"):
        model = made(spec)
    model.to_empty(device="cpu")
    if dtype is not None:
        model.to(dtype)
    fill_all(model, seed)
    return model.to(torch.device(device))


@torch.no_grad()
def blank_model(spec: ModelSpec, dtype: torch.dtype) -> Model:
    """The model that `spec` declares, its parameters still without values or memory, what is computed filled."""
    with torch.device("meta"):
        model = made(spec)
    model.to(dtype)
    for part in model.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            kept = name not in part._non_persistent_buffers_set
            part.register_buffer(name, torch.empty_like(buffer, device="cpu"), kept)
            if isinstance(part, Part):
                part.fills[name](part.get_buffer(name), torch.Generator())
    return model


def made(spec: ModelSpec) -> Model:
    """The model that `spec` declares, still without values, with its adapters."""
    model = spec.make(site_of(spec))
    for part in list(model.modules()):
        if isinstance(part, Model):  # one that stands within another has its own
            for adapter in part.spec.adapters:
                adapter.attach(part)
    return model


def site_of(spec: ModelSpec, at: Site | None = None) -> Site:
    """The root's place, or that of a model within another: what every part may know of the model."""
    labels = frozenset(spec.labels) | ({"start"} if "document" in spec.labels else set())
    path, parts = ("", {}) if at is None else (at.path, at.parts)
    return Site(
        path, spec.width, initial=spec.initial, vocabulary=spec.vocabulary, rank=spec.rank, labels=labels, parts=parts
    )


@torch.no_grad()
def fill_all(module: Part, seed: int, only: Collection[str] | None = None) -> None:
    """Fill every parameter and buffer below `module`, or only those named; one without a fill is an error."""
    for path, part in module.named_modules():
        fills = part.fills if isinstance(part, Part) else {}
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            address = f"{path}.{name}".lstrip(".")
            if only is not None and address not in only:
                continue
            if name not in fills:
                raise ValueError(f"{address} has no fill; declare it by self.param or self.buffer")
            fills[name](tensor, torch.Generator().manual_seed(zlib.crc32(f"{seed} {address}".encode())))
