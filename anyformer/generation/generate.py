"""Generation: prompts of any lengths in, tokens out one by one, on a state that is written in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Generator

from anyformer.core.model import Model
from anyformer.data.tokenizer import TextTokenizer
from anyformer.generation.sampling import Sampling

CHUNK = 512  # tokens of a prompt that are read at a time
WORTH_COMPILING = {"cpu": 16_384, "cuda": 1_024}  # tokens from which compiling the step pays (seconds against minutes)


@torch.no_grad()
def token_rows(
    model: Model,
    prompts: Sequence[Sequence[int]],
    count: int,
    sampling: Sampling,
    seed: int = 0,
    end: int | None = None,
) -> Iterator[list[int | None]]:
    """The next token of every row, up to `count` times; None for a row that has ended.

    prompts: ids, at least one a row. Row i draws from seed + i. end: the token that ends a row, not given out.
    """
    model.eval()
    rows, longest = len(prompts), max(map(len, prompts), default=0)
    if rows == 0 or min(map(len, prompts)) == 0:
        raise ValueError("there must be a prompt, and every prompt must have at least one token")
    if model.longest is not None and longest + count - 1 > model.longest:  # the last one is not read
        raise ValueError(
            f"the model's positions end at {model.longest} tokens; a prompt of {longest} and {count} more do not fit"
        )
    device = next(model.parameters()).device
    dice = [Generator().manual_seed(seed + row) for row in range(rows)]
    capacity = 1 << (longest + count - 1).bit_length()
    state = model.init_state(rows, capacity=capacity)
    # left padding, so that all rows end together; row by row the clock counts real tokens only
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    real = (
        torch.arange(longest, device=device)
        >= longest - torch.tensor([len(p) for p in prompts], device=device)[:, None]
    )
    ragged = not bool(real.all())
    logits = torch.empty(0)
    for part in range(0, longest, CHUNK):
        some = slice(part, part + CHUNK)
        logits, state = model(ids[:, some], state, real=real[:, some] if ragged else None)
    if count * rows >= WORTH_COMPILING.get(device.type, count * rows + 1) and model.stepper is None:
        model.compile_step()
    alive = [True] * rows
    for number in range(count):
        drawn = sampling.draw(logits[:, -1], dice)
        given: list[int | None] = []
        for row, token in enumerate(drawn.tolist()):
            alive[row] = alive[row] and token != end
            given.append(token if alive[row] else None)
        yield given
        if not any(alive) or number == count - 1:
            return
        logits, state = model(drawn[:, None], state)


def generate(
    model: Model,
    prompt: str = "",
    *,
    tokens: int = 64,
    sampling: Sampling | None = None,
    seed: int = 0,
    show: Callable[[str], None] | None = None,
) -> str:
    """What the model writes after `prompt`, the prompt left out. show: is called with each new piece of text."""
    return generate_all(model, [prompt], tokens=tokens, sampling=sampling, seed=seed, show=show)[0]


def generate_all(
    model: Model,
    prompts: Sequence[str],
    *,
    tokens: int = 64,
    sampling: Sampling | None = None,
    seed: int = 0,
    show: Callable[[str], None] | None = None,
) -> list[str]:
    """What the model writes after each prompt; row i as `generate` would alone with seed + i. show: of row 0."""
    if tokens < 0:
        raise ValueError(f"tokens must be at least 0; came {tokens}")
    tokenizer = tokenizer_of(model)
    streams = [tokenizer.stream() for _ in prompts]
    texts = [""] * len(prompts)

    def add(row: int, text: str) -> None:
        texts[row] += text
        if show is not None and row == 0 and text:
            show(text)

    starts = [start(tokenizer, prompt) for prompt in prompts]
    for new in token_rows(model, starts, tokens, sampling or Sampling(), seed, tokenizer.end) if tokens else ():
        for row, token in enumerate(new):
            if token is not None:
                add(row, streams[row].push(token))
    for row, stream in enumerate(streams):
        add(row, stream.flush())
    return texts


def start(tokenizer: TextTokenizer, prompt: str) -> list[int]:
    """The ids that generation goes on from: the begin token, where there is one, and the prompt's."""
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    ids = begin + tokenizer.encode(prompt)
    if not ids:
        raise ValueError("the prompt is empty and this model has no begin token: give it some text to go on from")
    return ids


def tokenizer_of(model: Model) -> TextTokenizer:
    """The text side of a loaded model."""
    if not isinstance(model.tokenizer, TextTokenizer):
        raise ValueError("this model has no tokenizer; load it from a run, or set model.tokenizer")
    return model.tokenizer
