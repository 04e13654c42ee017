"""What a language model is worth on text that it has not seen: nats a token, perplexity, bits a byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import exp, isfinite, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from anyformer.core.errors import InputError, NumericalStop
from anyformer.data.batches import windows
from anyformer.data.corpus import Corpus, build
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
GROUPS = 1000  # of neighbouring windows, at most: what is resampled, and so what bounds the memory that takes
LARGEST = 700.0  # nats: beyond, a perplexity is more than a float can hold


@dataclass(frozen=True)
class Result:
    """metrics: loss (nats a token), perplexity, bits_per_byte; tokens: how many were predicted.

    intervals: the metrics' 95 % ranges; {} where there is one window only, which says nothing of others.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    tokens: int


@torch.no_grad()
def measure(model: Model, text: TokenFile, length: int, batch: int = 32, batches: int | None = None) -> Result:
    """Reads the text in windows of `length`, each from an empty past; the first `batches` of them, or all.

    bits_per_byte takes the text's mean number of bytes a token. The intervals resample windows (a bootstrap), whose
    losses are nearly independent where tokens' are not.
    """
    if len(text) < 2:
        raise InputError(f"the text has {len(text)} tokens; at least 2 are needed to predict one from another")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    sums, counts, objective = [], [], NextToken()
    for number, (ids, lengths) in enumerate(islice(windows(text, length, batch), batches)):
        documents = None
        if "document" in model.labels:
            first = (number * batch + np.arange(len(ids))) * length
            places = (first[:, None] + np.arange(length + 1)).clip(max=len(text) - 1)
            documents = torch.as_tensor(text.documents(places), device=device)
        losses, predicted = objective.losses(model, torch.as_tensor(ids, device=device), documents)
        real = torch.arange(length, device=device) < torch.as_tensor(lengths, device=device)[:, None]
        sums.append((losses.double() * real).sum(1).cpu().numpy())
        counts.append((predicted & real).sum(1).double().cpu().numpy())
    model.train(was_training)
    return _result(np.concatenate(sums), np.concatenate(counts), text.bytes / (len(text) - 1))


def _result(sums: NDArray[np.float64], counts: NDArray[np.float64], bytes_per_token: float) -> Result:
    """From each window's nats and number of predicted tokens."""
    starts = np.linspace(0, len(sums), min(len(sums), GROUPS), endpoint=False).astype(int)
    sums, counts = np.add.reduceat(sums, starts), np.add.reduceat(counts, starts)
    draws = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = (float(edge) for edge in np.quantile(means, [0.025, 0.975]))
    loss = float(sums.sum() / counts.sum())
    scales = {"loss": float, "perplexity": perplexity, "bits_per_byte": lambda nats: nats / (log(2) * bytes_per_token)}
    metrics = {name: scale(loss) for name, scale in scales.items()}
    intervals = {name: (scale(low), scale(high)) for name, scale in scales.items()} if len(sums) > 1 else {}
    return Result(metrics, intervals, int(counts.sum()))


def perplexity(nats: float) -> float:
    """How many equally likely tokens are as hard to tell; the largest numbers stand for all that are larger."""
    return exp(min(nats, LARGEST))


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    batches: int | None = None,
    best: bool = False,
    device: str | torch.device = "cpu",
) -> Result:
    """What a run is worth on its own held-out text, or on all of `data` (a file or a folder), in its own windows.

    data: is cut into documents as the run's text was. changes: to the declaration, as in `load`. batches: only the
    first so many, of 32 windows each. best: the weights that did best, not the last.
    """
    model = load(run, changes, device=device, best=best)
    folder, tokenizer = RunFolder.open(run), model.tokenizer
    recipe = read(folder.recipe)
    if not isinstance(tokenizer, TextTokenizer):
        raise InputError(f"{run} has no tokenizer, so text cannot be read with it")
    source = recipe.data
    if data is not None:
        source = replace(source if isinstance(source, Text) else Text(path=data), path=data, held_out=1.0)
    corpus = build(source, recipe.seed, tokenizer)
    if data is None:
        refuse_other_text(folder, corpus)
    result = measure(model, corpus.held_out, recipe.training.length, batches=batches)
    if not isfinite(result.metrics["loss"]):
        raise NumericalStop(f"the loss of {run} on this text is {result.metrics['loss']}: its weights are no use")
    return result


def refuse_other_text(run: RunFolder, corpus: Corpus) -> None:
    """A run's text may not change under it: what it was trained on could now be held out."""
    if run.info.get("data", corpus.fingerprint) != corpus.fingerprint:
        raise InputError(
            f"the text or its tokenizer is not what {run.path} was trained on; bring it back, or start a new run"
        )
