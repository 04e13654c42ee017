"""The tensors of a model of `transformers`, as its file holds them, put into ours."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict

CLOSE: Any = {"rtol": 1e-9, "atol": 1e-9}
Renames = Sequence[tuple[str, str]]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def saved(reference: Any) -> dict[str, Tensor]:
    """What `save_pretrained` writes."""
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


@torch.no_grad()
def filled(declared: Mapping[str, Any], tensors: Mapping[str, Tensor], renames: Renames) -> Model:
    """Our model with the file's tensors: each finds a place, and no place is left empty.

    renames: parts of names, theirs and ours, one after the other.
    """
    model = from_dict(AnyModel, dict(declared)).build(dtype=torch.float64).eval()
    places = dict(model.named_parameters())
    for name, tensor in tensors.items():
        for theirs, ours in renames:
            name = name.replace(theirs, ours)
        place = places.pop(name)
        place.copy_(tensor.view(place.shape))
    assert not places, f"left empty: {sorted(places)}"
    return model
