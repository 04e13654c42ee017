"""A new model's `given` embeddings take the vectors of their files."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.core.spec import Spec
from anyformer.data.tokenizer import TextTokenizer
from anyformer.data.vectors import align
from anyformer.embeddings.given import Given


@torch.no_grad()
def fill_given(model: Model, tokenizer: TextTokenizer, source_tokenizer: TextTokenizer | None = None) -> str | None:
    """Fills them, and says what a user should know. Only for a model that is yet to be trained.

    source_tokenizer: of the embedding that reads sources, where that has words of its own.
    """
    notes: list[str] = []
    for path, given in _given(model.spec, ""):
        of_source = source_tokenizer is not None and path.startswith("source_embedding")
        words = source_tokenizer if of_source else tokenizer
        assert given.vectors is not None and words is not None
        vectors, missing = align(given.vectors, words)
        weight = model.get_parameter(f"{path}.weight")
        if vectors.shape[1] != weight.shape[1]:
            raise ConfigError(
                f"model.{path}: the vectors in {given.vectors} have {vectors.shape[1]} numbers, the embedding "
                f"{weight.shape[1]}: make the model as wide, or widen them, {{kind: factorised, size: "
                f"{vectors.shape[1]}, inner: {{kind: given, vectors: {given.vectors}}}}}"
            )
        weight[: len(vectors)] = vectors.to(weight)
        if missing:
            some = ", ".join(map(repr, missing[:3]))
            notes.append(
                f"{given.vectors} has no vector for {len(missing)} of {words.vocabulary} tokens ({some}"
                f"{', ...' if len(missing) > 3 else ''}), which begin as the mean of the others"
            )
    return "; ".join(notes) or None


def _given(spec: Spec, at: str) -> Iterator[tuple[str, Given]]:
    """The path and the declaration of every embedding that names a file."""
    if isinstance(spec, Given):
        if spec.vectors is not None:
            yield at, spec
        return
    for name in spec.fields():
        part = getattr(spec, name)
        if isinstance(part, Spec):
            yield from _given(part, f"{at}.{name}".lstrip("."))
