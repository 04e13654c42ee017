"""`load`: a trained model with its text side, whoever wrote it, and perhaps with some parts swapped."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch

from anyformer.core.model import Model
from anyformer.data.corpus import Tokenizers
from anyformer.models.checkpoint import open_checkpoint
from anyformer.models.published import common_dtype
from anyformer.models.surgery import Surgery, changed_spec, operate


class How(TypedDict, total=False):
    """How a trained model is opened.

    changes: path in the model -> new value, such as {"body.blocks.*.mixer.pattern": "causal & window(64)"}; what has a
    weight of the same name and shape keeps it, and a warning names what is new and what is dropped. dtype: None: that
    of the weights. best: the weights of a run that did best on held-out text, not the last ones. allow: keys and
    tensors of a published folder to go on without.
    """

    changes: Mapping[str, Any] | None
    device: str | torch.device
    dtype: torch.dtype | None
    best: bool
    allow: Collection[str]


def load(
    path: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    best: bool = False,
    allow: Collection[str] = (),
) -> Model:
    """The model of a run, or of a folder as others publish theirs, ready to read and write. Arguments: see `How`."""
    model, surgery, notes = operated(path, changes, device=device, dtype=dtype, best=best, allow=allow)
    for note in (*notes, "; ".join(surgery.lines())):
        if note:
            warnings.warn(note, stacklevel=2)
    return model


def operated(
    path: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    best: bool = False,
    allow: Collection[str] = (),
) -> tuple[Model, Surgery, list[str]]:
    """The model of `load`, what became of the weights, and what else a user should be told."""
    found = open_checkpoint(path, best=best, allow=allow, dtype=dtype)
    spec = changed_spec(found.spec, changes) if changes else found.spec
    model, surgery = operate(spec, found.tensors, dtype or common_dtype(found.tensors, found.where))
    if found.tokenizers is not None:
        give_tokenizers(model, found.tokenizers)
    return model.to(torch.device(device)).eval(), surgery, found.notes


def give_tokenizers(model: Model, tokenizers: Tokenizers) -> None:
    """A model's text side; one tokenizer serves both sides where there is no other for sources."""
    model.tokenizer, model.source_tokenizer = tokenizers.target, tokenizers.of_source
