"""What a language model is worth on text that it has not seen: nats a token, perplexity, bits a byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from anyformer.core.errors import InputError
from anyformer.data.batches import windows
from anyformer.data.corpus import build
from anyformer.data.text import Text
from anyformer.data.tokenizer import TextTokenizer
from anyformer.models.load import load
from anyformer.recipes.read import read
from anyformer.runs.folder import RunFolder
from anyformer.training.objectives.next_token import NextToken

if TYPE_CHECKING:
    from anyformer.core.model import Model
    from anyformer.data.token_file import TokenFile

RESAMPLES = 2000


@dataclass(frozen=True)
class Result:
    """metrics: loss (nats a token), perplexity, bits_per_byte; intervals: their 95 % ranges; tokens: predicted."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    tokens: int


@torch.no_grad()
def measure(model: Model, text: TokenFile, length: int, batch: int = 32, batches: int | None = None) -> Result:
    """Reads the text in windows of `length`, each from an empty past; the first `batches` of them, or all.

    The intervals resample windows (a bootstrap), whose losses are nearly independent where tokens' are not.
    """
    if len(text) < 2:
        raise InputError(f"the text has {len(text)} tokens; at least 2 are needed to predict one from another")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    sums, counts = [], []
    for number, (ids, lengths) in enumerate(islice(windows(text, length, batch), batches)):
        documents = None
        if "document" in model.labels:
            first = (number * batch + np.arange(len(ids))) * length
            places = (first[:, None] + np.arange(length + 1)).clip(max=len(text) - 1)
            documents = torch.as_tensor(text.documents(places), device=device)
        losses, predicted = NextToken().losses(model, torch.as_tensor(ids, device=device), documents)
        real = torch.arange(length, device=device) < torch.as_tensor(lengths, device=device)[:, None]
        sums.append((losses * real).sum(1).double().cpu().numpy())
        counts.append((predicted & real).sum(1).double().cpu().numpy())
    model.train(was_training)
    return _result(np.concatenate(sums), np.concatenate(counts), text.bytes / max(len(text) - 1, 1))


def _result(sums: NDArray[np.float64], counts: NDArray[np.float64], bytes_per_token: float) -> Result:
    """From each window's nats and number of predicted tokens."""
    draws = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = (float(edge) for edge in np.quantile(means, [0.025, 0.975]))
    loss = float(sums.sum() / counts.sum())
    scales = {"loss": float, "perplexity": exp, "bits_per_byte": lambda nats: nats / (log(2) * bytes_per_token)}
    metrics = {name: scale(loss) for name, scale in scales.items()}
    intervals = {name: (scale(low), scale(high)) for name, scale in scales.items()} if len(sums) > 1 else {}
    return Result(metrics, intervals, int(counts.sum()))


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    batches: int | None = None,
    best: bool = False,
    device: str | torch.device = "cpu",
) -> Result:
    """What a run is worth on its own held-out text, or on all of `data` (files or a folder), in its own windows.

    changes: to the declaration, as in `load`. best: the weights that did best, not the last.
    """
    model = load(run, changes, device=device, best=best)
    recipe, tokenizer = read(RunFolder.open(run).recipe), model.tokenizer
    if not isinstance(tokenizer, TextTokenizer):
        raise InputError(f"{run} has no tokenizer, so text cannot be read with it")
    source = recipe.data if data is None else Text(path=data, held_out=1.0)
    text = build(source, recipe.seed, tokenizer).held_out
    return measure(model, text, recipe.training.length, batches=batches)
