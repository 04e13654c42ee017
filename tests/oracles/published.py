"""The modules of `transformers`, made exact: float64 from end to end, with weights so large that a slip shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def modeling(name: str) -> Any:
    """The file in which transformers has a model's modules."""
    pytest.importorskip("transformers")
    return import_module(f"transformers.models.{name}.modeling_{name}")


def config(name: str, **fields: Any) -> Any:
    """A model's config, with the plain experts where it has some."""
    made = getattr(pytest.importorskip("transformers"), name)(**fields)
    made._experts_implementation = "eager"
    made._attn_implementation = "eager"
    return made


@torch.no_grad()
def redrawn(module: nn.Module, std: float = 0.5) -> nn.Module:
    """In float64, every parameter and saved buffer from N(0, std²)."""
    module.double().eval()
    for number, tensor in enumerate(module.state_dict().values()):
        tensor.normal_(std=std, generator=torch.Generator().manual_seed(number))
    return module


@contextmanager
def exact() -> Iterator[None]:
    """Within it, what transformers' sources name float32 is float64: they round norms and softmaxes to it.

    So is what they do not name: some make tables of numbers.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("float32", "float"):
                patch.setattr(torch, name, torch.float64)
            patch.setattr(Tensor, "float", Tensor.double)
            yield
    finally:
        torch.set_default_dtype(usual)
