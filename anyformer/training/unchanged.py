"""What may not change under a run: its text, and the guide that its loss looks at."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from anyformer.core.errors import InputError
from anyformer.core.model import Model
from anyformer.data.corpus import Corpus
from anyformer.runs.folder import RunFolder


def refuse_other_text(run: RunFolder, corpus: Corpus[Any]) -> None:
    """What a run was trained on could now be held out."""
    if run.info.get("data", corpus.fingerprint) != corpus.fingerprint:
        raise InputError(
            f"the text or its tokenizer is not what {run.path} was trained on; bring it back, or start a new run"
        )


def refuse_other_guide(run: RunFolder, model: Model) -> None:
    """With another guide, the loss would be another function of the same text."""
    if run.info.get("guide") != guide_hash(model):
        raise InputError(
            f"the weights that {run.path} is guided by, of its teacher or of what it began with, are not those of its"
            " first step; bring them back, or start a new run"
        )


def guide_hash(model: Model) -> str | None:
    """sha256 of the names and the numbers of a model's guide; None: it has none."""
    if not model.guide:
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(model.guide[0].state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
