"""What a decoder says of given tokens: -log of each one's probability after those before it, and whether it is the
likeliest one. Rows of any lengths are one batch; logits are made of the tokens that are asked for, and of no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.context import Where
from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.generation.prompts import padded
from anyformer.heads.base import AT_ONCE, TokenHead, nats
from anyformer.training.objectives.streams import check_words

PROBE = 8  # tokens of the text with which a model is asked whether it looks ahead


@dataclass(frozen=True)
class Told:
    """nats, likeliest: (N,), of each token that a row asks for."""

    nats: Tensor
    likeliest: Tensor


@torch.no_grad()
def told(model: Model, rows: Sequence[tuple[Sequence[int], int]]) -> list[Told]:
    """Of each row, ids and how many of the last are asked for: at least one, and not the first id of all."""
    if wrong := [(len(ids), count) for ids, count in rows if not 1 <= count < len(ids)]:
        raise ValueError(f"a row of {wrong[0][0]} ids has from 1 to all but one that can be asked; came {wrong[0][1]}")
    head = head_of(model)
    device = next(model.parameters()).device
    ids, real = padded([row[:-1] for row, _ in rows], "right", device)
    targets, _ = padded([row[1:] for row, _ in rows], "right", device)
    counts = torch.tensor([count for _, count in rows], device=device)
    lengths = real.sum(1)
    places = torch.arange(ids.shape[1], device=device)
    asked = real & (places >= (lengths - counts)[:, None])

    def read(h: Tensor, where: Where) -> list[Told]:
        some = max(1, AT_ONCE // head.size)
        parts = [
            of_logits(head.logits(stream), wanted)
            for stream, wanted in zip(h[asked].split(some), targets[asked].split(some), strict=True)
        ]
        split = [
            torch.cat([getattr(part, name) for part in parts]).split(counts.tolist()) for name in ("nats", "likeliest")
        ]
        return [Told(*row) for row in zip(*split, strict=True)]

    return model.read(ids, read, lengths=None if bool(real.all()) else lengths)


def of_logits(logits: Tensor, wanted: Tensor) -> Told:
    """(N, V) and the tokens (N,) that are asked for."""
    return Told(nats(logits, wanted, 0.0), logits.argmax(-1) == wanted)


def head_of(model: Model) -> TokenHead:
    """What says the next token."""
    check_words(model, "scoring the next token")
    if not isinstance(model.head, TokenHead):
        raise ConfigError(f"scoring the next token needs a decoder; this is a {type(model.spec).__name__}")
    return model.head


def check_teller(model: Model) -> None:
    """Refuse a model that does not say the next token, or that is told it."""
    if isinstance(model, EncoderDecoderModel):
        raise ConfigError("scoring the next token needs a decoder alone; this is an encoder and a decoder")
    if looks_ahead(model, head_of(model).size):
        raise ConfigError(
            "scoring the next token needs a decoder; a token of this model sees those after it, and so what is asked"
        )


@torch.no_grad()
def looks_ahead(model: Model, vocabulary: int) -> bool:
    """Whether a token sees those after it: it is tried whether another last token changes anything before it.

    A state would say less: some models of which the text must come whole do not look ahead.
    """
    length = PROBE if model.longest is None else min(PROBE, model.longest)
    ids = torch.arange(length, device=next(model.parameters()).device)[None] % vocabulary
    other = ids.clone()
    other[:, -1] = (ids[:, -1] + 1) % vocabulary
    was_training = model.training
    model.eval()
    first, second = (model.read(text, lambda h, where: h[:, :-1]) for text in (ids, other))
    model.train(was_training)
    return not torch.allclose(first, second, rtol=1e-3, atol=1e-3 * float(first.abs().amax()))
