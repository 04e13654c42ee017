"""What a model is worth on what it was not trained on: the objective's marks of all of it, scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anyformer.core.model import Model
from anyformer.data.corpus import Corpus
from anyformer.training.objectives.base import Coder, Objective, placed
from anyformer.training.scores import Result, scored

if TYPE_CHECKING:
    from anyformer.recipes.schema import Training


@torch.no_grad()
def measure(
    objective: Objective[Any],
    model: Model,
    corpus: Corpus[Any],
    training: Training,
    batches: int | None = None,
    write: bool = False,
) -> Result:
    """The held-out side, or its first `batches` batches. write: also what the model writes by itself, which is slow."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    marks: dict[str, list[Any]] = {}
    for part in objective.exam(corpus, model, training, batches):
        tensors = placed(part.tensors, device)
        found = objective.marks(model, tensors)
        if write:
            found |= objective.written(model, tensors, Coder(corpus.tokenizers, corpus.classes))
        for name, values in found.items():
            marks.setdefault(name, []).append(values.double().cpu().numpy())
    model.train(was_training)
    figures = objective.figures(corpus) | (objective.written_figures() if write else {})
    return scored({name: np.concatenate(values) for name, values in marks.items()}, figures)
