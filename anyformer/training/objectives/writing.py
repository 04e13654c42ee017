"""What a model writes by itself after prompts that are batches of ids: for objectives whose answers are texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model


def sources(ids: Tensor, lengths: Tensor | None) -> list[list[int]]:
    """Rows without their padding."""
    if lengths is None:
        return ids.tolist()
    return [row[:size] for row, size in zip(ids.tolist(), lengths.tolist(), strict=True)]


def written(
    model: Model, prompts: list[list[int]], read: list[list[int]] | None, beams: int, length_penalty: float
) -> list[str]:
    """The best text of a beam search after each prompt. read: what the encoder reads, where there is one.

    It may have 50 tokens more than was read (Vaswani et al. 2017, section 6.1), as far as the positions go.
    """
    from anyformer.generation.beam import Beams, beam_search
    from anyformer.generation.prompts import LONGER, Prompts, tokenizer_of

    tokenizer = tokenizer_of(model)
    counts = [len(row) + LONGER for row in read or prompts]
    if model.longest is not None:
        counts = [min(count, model.longest - len(prompt)) for count, prompt in zip(counts, prompts, strict=True)]
    search = Beams(beams=beams, length_penalty=length_penalty)
    found = beam_search(model, Prompts(prompts, counts, read), search, end=tokenizer.end)
    return [tokenizer.decode(best.ids) for best, *_ in found]
