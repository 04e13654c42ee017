"""`load`: a run folder in, a model with its tokenizer out; strict."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anyformer.core.errors import InputError
from anyformer.core.model import Model
from anyformer.core.overrides import override
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.data.corpus import Tokenizers
from anyformer.data.tokenizer import TextTokenizer
from anyformer.runs.folder import SOURCE_TOKENIZER, RunFolder


def load(
    path: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    device: str | torch.device = "cpu",
    best: bool = False,
) -> Model:
    """The model of a run, ready to read and write.

    changes: path in the model -> new value, such as {"body.blocks.*.mixer.pattern": "causal & window(64)"}; every
    weight must still have its place. best: the weights that did best on held-out text, not the last ones.
    """
    with RunFolder.open(path) as run:
        tree = run.spec
        for address, value in (changes or {}).items():
            tree = override(tree, address, value, AnyModel)
        model = from_dict(AnyModel, tree).build(device=device)
        fill(model, run.weights(best), str(run.path))
        if (tokenizers := tokenizers_of(run)) is not None:
            give_tokenizers(model, tokenizers)
        for note in run.notes:  # weights that are no numbers
            warnings.warn(note, stacklevel=2)
    return model.eval()


def tokenizers_of(run: RunFolder) -> Tokenizers | None:
    """The tokenizers that a run was trained with; None where it reads no text."""
    if run.tokenizer is None:
        return None
    source = run.source_tokenizer
    return Tokenizers(
        TextTokenizer.read(run.tokenizer, str(run.path / "tokenizer.json")),
        None if source is None else TextTokenizer.read(source, str(run.path / SOURCE_TOKENIZER)),
    )


def give_tokenizers(model: Model, tokenizers: Tokenizers) -> None:
    """A model's text side; one tokenizer serves both sides where there is no other for sources."""
    model.tokenizer, model.source_tokenizer = tokenizers.target, tokenizers.of_source


def fill(model: Model, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Every tensor has a place and every place a tensor, of its shape."""
    places = model.state_dict()
    missing, unknown = sorted(places.keys() - tensors.keys()), sorted(tensors.keys() - places.keys())
    other = [name for name in places.keys() & tensors.keys() if places[name].shape != tensors[name].shape]
    if missing or unknown or other:
        shapes = [f"{name} is {tuple(tensors[name].shape)}, not {tuple(places[name].shape)}" for name in sorted(other)]
        parts = [
            f"no tensor for {', '.join(missing[:4])}" if missing else "",
            f"no place for {', '.join(unknown[:4])}" if unknown else "",
            "; ".join(shapes[:4]),
        ]
        raise InputError(f"the weights in {source} do not fit its declaration: {'; '.join(p for p in parts if p)}")
    model.load_state_dict(dict(tensors))
