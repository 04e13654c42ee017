"""Prompts: what each row of a batch goes on from, of any lengths, read into a state with room for what follows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyformer.architectures.encoder_decoder import SOURCE, EncoderDecoderModel
from anyformer.core.context import Source
from anyformer.core.model import Model
from anyformer.core.state import State
from anyformer.data.tokenizer import TextTokenizer
from anyformer.heads.base import TokenHead

CHUNK = 512  # tokens of a prompt that are read at a time
TOKENS = 64  # after a prompt, unless said otherwise
LONGER = 50  # tokens that a target may have more than its source (Vaswani et al. 2017, section 6.1)
PREFIX = "prefix"  # the label of a prompt that is seen from both sides


@dataclass(frozen=True)
class Prompts:
    """ids: what each row goes on from, at least one token. counts: how many more tokens each may get.

    sources: what the encoder reads for each row; None: there is no encoder.
    """

    ids: Sequence[Sequence[int]]
    counts: Sequence[int]
    sources: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if not self.ids or not all(map(len, self.ids)) or not all(map(len, self.sources or self.ids)):
            raise ValueError("there must be a prompt, and every prompt must have at least one token")
        if len({len(self.ids), len(self.counts), len(self.sources or self.ids)}) > 1:
            raise ValueError("there must be as many counts, and sources, as prompts")
        if min(self.counts) < 0:
            raise ValueError(f"tokens must be at least 0; came {min(self.counts)}")


def prompts_of(model: Model, texts: Sequence[str], tokens: int | None = None) -> Prompts:
    """What a model with a text side reads of these texts. tokens: how many more, at most; None: 64.

    A decoder goes on from its begin token and the text. An encoder reads the text and its end token, and the decoder
    goes on from its begin token (its end token, where it has no other); None: 50 tokens more than the encoder reads, as
    far as the positions go.
    """
    tokenizer = tokenizer_of(model)
    if not isinstance(model, EncoderDecoderModel):
        return Prompts([start(tokenizer, text) for text in texts], [TOKENS if tokens is None else tokens] * len(texts))
    first = tokenizer.first
    if first is None:
        raise ValueError("the tokenizer has neither a begin nor an end token from which a target could start")
    if not all(texts):
        raise ValueError("the source is empty: give it some text to read")
    reader = model.source_tokenizer if isinstance(model.source_tokenizer, TextTokenizer) else tokenizer
    sources = [reader.ended(text) for text in texts]
    most = [len(source) + LONGER for source in sources]
    if tokens is not None:
        most = [tokens] * len(texts)
    elif model.longest is not None:
        most = [min(count, model.longest) for count in most]
    return Prompts([[first]] * len(texts), most, sources)


def ends_of(end: int | Collection[int] | None) -> frozenset[int]:
    """The tokens that end a text: none, one or several."""
    return frozenset() if end is None else frozenset({end} if isinstance(end, int) else end)


def start(tokenizer: TextTokenizer, prompt: str) -> list[int]:
    """The ids that generation goes on from: the begin token, where there is one, and the prompt's."""
    ids = tokenizer.begun(prompt)
    if not ids:
        raise ValueError("the prompt is empty and this model has no begin token: give it some text to go on from")
    return ids


def tokenizer_of(model: Model) -> TextTokenizer:
    """The text side of a loaded model."""
    if not isinstance(model.tokenizer, TextTokenizer):
        raise ValueError("this model has no tokenizer; load it from a run, or set model.tokenizer")
    return model.tokenizer


def read(model: Model, prompts: Prompts) -> tuple[Tensor, State]:
    """The logits (B, V) of each row's next token, and the state, written in place, after its prompt.

    A prompt is read in chunks, except where the model sees all of it from both sides.
    """
    if not isinstance(model.head, TokenHead) or model.head.size != model.spec.vocabulary:
        raise ValueError("this model's head does not say what comes next; one such as tied or language does")
    longest = max(map(len, prompts.ids))
    for ids, count in zip(prompts.ids, prompts.counts, strict=True):
        check_longest(model, len(ids), count)
    sources = encoded(model, prompts.sources)
    room = capacity(longest + max(prompts.counts) - 1)
    state = model.init_state(len(prompts.ids), sources=sources, capacity=room)
    # left padding, so that all rows end together; row by row the clock counts real tokens only
    ids, real = padded(prompts.ids, "left", next(model.parameters()).device)
    ragged = not bool(real.all())
    whole = PREFIX in model.labels
    size = longest if whole else CHUNK
    logits = torch.empty(0)
    for part in range(0, longest, size):
        some = slice(part, part + size)
        labels = {PREFIX: torch.ones_like(ids)} if whole else None
        logits, state = model(ids[:, some], state, real=real[:, some] if ragged else None, labels=labels)
    return logits[:, -1], state


def encoded(model: Model, sources: Sequence[Sequence[int]] | None) -> dict[str, Source] | None:
    """What cross attention reads."""
    if isinstance(model, EncoderDecoderModel) != (sources is not None):
        raise ValueError("a model with an encoder needs a source for each prompt, and no other model can read one")
    if not isinstance(model, EncoderDecoderModel) or sources is None:
        return None
    ids, real = padded(sources, "right", next(model.parameters()).device)
    return {SOURCE: model.encode(ids, real.sum(1))}


def padded(rows: Sequence[Sequence[int]], side: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """ids and what of them is real, both (B, T)."""
    longest = max(map(len, rows))
    ids, real = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        some = slice(len(tokens)) if side == "right" else slice(longest - len(tokens), longest)
        ids[row, some] = torch.tensor(tokens)
        real[row, some] = True
    return ids.to(device), real.to(device)


def capacity(tokens: int) -> int:
    """The room to make for so many tokens: a power of two, so that compiled steps are few."""
    return 1 << tokens.bit_length()


def check_longest(model: Model, length: int, count: int) -> None:
    """Refuse more than the positions can tell apart; the last token is written and not read."""
    if model.longest is not None and length + count - 1 > model.longest:
        raise ValueError(
            f"the model's positions end at {model.longest} tokens; a prompt of {length} and {count} more do not fit"
        )
