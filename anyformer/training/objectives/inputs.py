"""How texts become one input (Devlin et al. 2019, section 3.2): [start] text [separator], or text [separator] pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyformer.training.objectives.rows import text_of

if TYPE_CHECKING:
    from anyformer.core.model import Model
    from anyformer.data.base import Row
    from anyformer.data.examples import Example, Examples
    from anyformer.data.tokenizer import TextTokenizer
    from anyformer.training.objectives.base import Tensors


def text_or_pair(row: Row, tokenizer: TextTokenizer) -> Example:
    """The columns `text` and, where there is one, `pair`, as one input."""
    texts = [text_of(row, name) for name in ("text", "pair") if name == "text" or name in row]
    return marked(tokenizer, [tokenizer.encode(text) for text in texts])


def marked(tokenizer: TextTokenizer, texts: list[list[int]]) -> Example:
    """`ids` of encoded texts with their marks, as far as the tokenizer has them; `segment`: which text each is of."""
    ids = [] if tokenizer.start is None else [tokenizer.start]
    segments = [0] * len(ids)
    for number, text in enumerate(texts):
        part = text + ([] if tokenizer.separator is None else [tokenizer.separator])
        ids += part
        segments += [number] * len(part)
    return {"ids": np.array(ids), "segment": np.array(segments)}


def padded(
    examples: Examples, name: str, rows: NDArray[np.int64], length: int, fill: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(B, T) of at most `length` and the lengths (B,) within it."""
    return examples.padded(name, rows, fill)[:, :length], examples.lengths(name, rows).clip(max=length)


def inputs(examples: Examples, rows: NDArray[np.int64], length: int) -> dict[str, NDArray[Any]]:
    """`ids` and `segment` of some rows; without `lengths` where there is no padding, which costs a mask."""
    ids, lengths = padded(examples, "ids", rows, length)
    arrays = {"ids": ids, "segment": padded(examples, "segment", rows, length)[0]}
    return arrays if (lengths == ids.shape[1]).all() else arrays | {"lengths": lengths}


def given(model: Model, tensors: Tensors) -> dict[str, Any]:
    """What a model is told beside the ids of its inputs."""
    said: dict[str, Any] = {"lengths": tensors["lengths"]} if "lengths" in tensors else {}
    return said | ({"labels": {"segment": tensors["segment"]}} if "segment" in model.labels else {})
