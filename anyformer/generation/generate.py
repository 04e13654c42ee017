"""Generation: texts in, texts out, token by token, on a state that is written in place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Literal

import torch
from torch import Generator, Tensor

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.model import Model
from anyformer.data.stream import Stream
from anyformer.generation.beam import Search, beam_search
from anyformer.generation.prompts import Prompts, ends_of, prompts_of, read, tokenizer_of
from anyformer.generation.rules import Rules, SoFar, check_choice
from anyformer.generation.sampling import Sampling, Seen, check_logits
from anyformer.generation.stops import Stops

WORTH_COMPILING = {"cpu": 16_384, "cuda": 1_024}  # tokens from which compiling the step pays (seconds against minutes)


@torch.no_grad()
def token_rows(
    model: Model,
    prompts: Prompts,
    sampling: Sampling,
    *,
    seed: int = 0,
    end: int | Collection[int] | None = None,
    samples: int = 1,
    rules: Rules | None = None,
) -> Iterator[list[int | None]]:
    """The next token of every row, again and again, until all have ended; None for a row that has.

    samples: rows for each prompt, side by side. Row i draws from seed + i. end: the token that ends a row, or
    several of which each does, not given out. rules: of what may come next.
    """
    if not any(prompts.counts):
        return
    model.eval()
    logits, state = read(model, prompts)
    each = torch.arange(len(prompts.ids), device=logits.device).repeat_interleave(samples)
    if samples > 1:
        logits, state = logits[each], state.select(each)
    left = [count for count in prompts.counts for _ in range(samples)]  # how many tokens each row may still get
    ends = ends_of(end)
    worth = WORTH_COMPILING.get(logits.device.type)
    dice = [Generator().manual_seed(seed + row) for row in range(len(left))]
    seen = None
    if sampling.penalises:
        seen = Seen.of([ids for ids in prompts.ids for _ in range(samples)], logits.shape[-1], logits.device)
    so_far = None
    if rules is not None:
        rules.check(logits.shape[-1])
        so_far = SoFar.of(prompts, logits.device).select(each)
    # a row that has ended goes along, and where the positions would not reach so far its tokens are padding
    short = model.longest is not None and max(map(len, prompts.ids)) + max(left) - 1 > model.longest
    with compiled(model, worth is not None and sum(left) >= worth and prompts.sources is None):
        while any(left):
            if rules is not None and so_far is not None:
                logits = ruled(logits, rules, so_far, ends, left)
            drawn = sampling.draw(logits, dice, seen)
            given = [
                token if more and token not in ends else None for more, token in zip(left, drawn.tolist(), strict=True)
            ]
            left = [0 if token is None else more - 1 for more, token in zip(left, given, strict=True)]
            yield given
            if any(left):
                if seen is not None:
                    seen.write(drawn)
                if so_far is not None:
                    so_far = so_far.write(drawn)
                real = torch.tensor(left, device=drawn.device)[:, None] > 0 if short else None
                logits, state = model(drawn[:, None], state, real=real)
                logits = logits[:, -1]


def ruled(logits: Tensor, rules: Rules, so_far: SoFar, ends: Collection[int], left: Sequence[int]) -> Tensor:
    """The logits of what may come; rows that have ended, with nothing left, are held to no rules."""
    check_logits(logits)
    going = torch.tensor(left, device=logits.device)[:, None] > 0
    logits = torch.where(going, rules.apply(logits, so_far, ends), logits)
    check_choice(bool((logits > -inf).any(-1).all()))
    return logits


@contextmanager
def compiled(model: Model, worth: bool) -> Iterator[None]:
    """The step compiled while tokens are written, if that is worth it; prompts, each of its own length, are not."""
    if not worth or model.stepper is not None:
        yield
        return
    from torch._dynamo import config

    # whatever is compiled is kept, once for each number of rows and room; more than 8 of them would be an error
    with config.patch(recompile_limit=256):
        model.compile_step()
        try:
            yield
        finally:
            model.stepper = None


@dataclass
class Writing:
    """One text in the making.

    most: how many tokens it may have. show: is called with each new piece. text: what is shown so far. ids: its tokens,
    without the end token. ended: by an end token, by a stop string, or because it has `most` tokens; None: not yet.
    score: what beams compare.
    """

    stream: Stream
    stops: Stops
    most: int
    show: Callable[[str], None] | None = None
    score: float | None = None
    text: str = ""
    ids: list[int] = field(default_factory=list)
    ended: Literal["end", "stop", "length"] | None = None

    def add(self, token: int | None) -> None:
        """One token more; None: there is none."""
        if self.ended is not None:
            return
        if token is not None:
            self.ids.append(token)
            self._put(self.stops.push(self.stream.push(token)))
        last = token is None or len(self.ids) == self.most
        if last and not self.stops.over:
            self._put(self.stops.push(self.stream.flush()))
            self._put(self.stops.flush())
        if last or self.stops.over:
            self.ended = "stop" if self.stops.over else "length" if len(self.ids) == self.most else "end"

    def pause(self) -> None:
        """Show what could have become a stop string."""
        if self.ended is None:
            self._put(self.stops.flush())

    def _put(self, text: str) -> None:
        self.text += text
        if text and self.show is not None:
            self.show(text)


def write_all(
    model: Model,
    prompts: Sequence[str],
    *,
    tokens: int | None = None,
    sampling: Sampling | None = None,
    beams: Search | None = None,
    rules: Rules | None = None,
    stop: str | Sequence[str] = (),
    samples: int = 1,
    seed: int = 0,
    show: Callable[[str], None] | None = None,
) -> list[list[Writing]]:
    """The `samples` texts that the model writes after each prompt: see `generate_all`."""
    if sampling is not None and beams is not None:
        raise ValueError("beams look for the likeliest text and draw nothing: give sampling or beams, not both")
    if samples < 1:
        raise ValueError(f"samples must be at least 1; came {samples}")
    tokenizer, asked = tokenizer_of(model), prompts_of(model, prompts, tokens)
    texts = [[Writing(tokenizer.stream(), Stops(stop), most) for _ in range(samples)] for most in asked.counts]
    texts[0][0].show = show
    if beams is not None:
        searched = beam_search(model, asked, beams, end=tokenizer.ends, best=samples, rules=rules)
        for row, found in zip(texts, searched, strict=True):
            for text, one in zip(row, found, strict=True):
                text.score = one.score
                for token in (*one.ids, None):
                    text.add(token)
        return texts
    if sampling is None:
        sampling = Sampling(greedy=isinstance(model, EncoderDecoderModel))
    if samples > 1 and not sampling.draws:
        raise ValueError(f"all samples would be the same: give a sampling that draws, or beams; came {sampling}")
    rows = [text for row in texts for text in row]
    for new in token_rows(model, asked, sampling, seed=seed, end=tokenizer.ends, samples=samples, rules=rules):
        for text, token in zip(rows, new, strict=True):
            text.add(token)
        if all(text.ended for text in rows):
            break
    for text in rows:
        text.add(None)  # of those that were to have no token at all
    return texts


def generate_all(
    model: Model,
    prompts: Sequence[str],
    *,
    tokens: int | None = None,
    sampling: Sampling | None = None,
    beams: Search | None = None,
    rules: Rules | None = None,
    stop: str | Sequence[str] = (),
    samples: int = 1,
    seed: int = 0,
    show: Callable[[str], None] | None = None,
) -> list[str]:
    """What the model writes after each prompt, the prompt left out; with an encoder, what it makes of each.

    tokens: how many at most; None: 64, with an encoder 50 more than the source has. sampling: how they are drawn; None:
    as likely as the model says, with an encoder always the likeliest. beams: look for the likeliest text instead.
    rules: of what may come next. stop: texts, before which a text is cut. samples: texts for each prompt, side by side;
    of beams the best ones. Row i is what `generate` writes alone with seed + i. show: is called with each new piece of
    the first text.
    """
    texts = write_all(
        model,
        prompts,
        tokens=tokens,
        sampling=sampling,
        beams=beams,
        rules=rules,
        stop=stop,
        samples=samples,
        seed=seed,
        show=show,
    )
    return [text.text for row in texts for text in row]


def generate(
    model: Model,
    prompt: str = "",
    *,
    tokens: int | None = None,
    sampling: Sampling | None = None,
    beams: Search | None = None,
    rules: Rules | None = None,
    stop: str | Sequence[str] = (),
    seed: int = 0,
    show: Callable[[str], None] | None = None,
) -> str:
    """What the model writes after `prompt`, or makes of it: see `generate_all`."""
    return generate_all(
        model, [prompt], tokens=tokens, sampling=sampling, beams=beams, rules=rules, stop=stop, seed=seed, show=show
    )[0]
