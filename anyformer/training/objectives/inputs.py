"""How texts become one input (Devlin et al. 2019, section 3.2): [start] text [separator], or text [separator] pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyformer.training.objectives.base import IGNORED
from anyformer.training.objectives.rows import text_of

if TYPE_CHECKING:
    from anyformer.core.model import Model
    from anyformer.data.base import Row
    from anyformer.data.examples import Example, Examples
    from anyformer.data.tokenizer import TextTokenizer
    from anyformer.training.objectives.base import Tensors
    from anyformer.training.objectives.rows import Arrays


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


def after_prompt(whole: NDArray[np.int64], prompts: NDArray[np.int64]) -> Arrays:
    """`ids` (…, T), `prefix` and `targets` of prompts with their answers (…, T + 1), IGNORED behind them.

    prompts: (…, 1), how long they are; what comes after them is asked for.
    """
    places = np.arange(whole.shape[-1] - 1)
    targets = np.where(places < prompts - 1, IGNORED, whole[..., 1:])
    prefix = np.broadcast_to(places < prompts, targets.shape).astype(np.int64)
    return {"ids": whole[..., :-1].clip(min=0), "prefix": prefix, "targets": targets}


def given(model: Model, tensors: Tensors) -> dict[str, Any]:
    """What a model is told beside the ids of its inputs: their lengths, and of its labels those that there are."""
    said: dict[str, Any] = {"lengths": tensors["lengths"]} if "lengths" in tensors else {}
    labels = {name: tensors[name] for name in model.labels if name in tensors}
    return said | ({"labels": labels} if labels else {})


def around(tokenizer: TextTokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The marks before and after a text that an encoder reads: a published tokenizer's, else those of training."""
    before, after = tokenizer.roles.before, tokenizer.roles.after
    if before is not None and after is not None:
        return before, after
    start, separator = (() if token is None else (token,) for token in (tokenizer.start, tokenizer.separator))
    return start, separator
