"""Conversation: a text that is read and written in turns, on a state that is carried from turn to turn.

However it is cut into turns, the tokens are the same as if all had been read and written at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.model import Model
from anyformer.generation.generate import Writing
from anyformer.generation.prompts import CHUNK, PREFIX, TOKENS, capacity, check_longest, tokenizer_of
from anyformer.generation.sampling import Sampling, Seen
from anyformer.generation.stops import Stops


class Conversation:
    """ids: all tokens so far. ended: whether the model wrote one of `ends`, and waits to hear more.

    last: what it wrote last.
    """

    last: Writing

    def __init__(self, model: Model, *, sampling: Sampling | None = None, seed: int = 0) -> None:
        if isinstance(model, EncoderDecoderModel) or PREFIX in model.labels:
            raise ValueError("this model reads all of a prompt before it writes, and none after: use generate")
        self.model, self.tokenizer = model, tokenizer_of(model)
        self.ends = self.tokenizer.ends
        self.sampling, self.die = sampling or Sampling(), Generator().manual_seed(seed)
        self.ids: list[int] = []
        self.state, self.read, self.room = None, 0, 0  # how many ids the state has read, and can hold
        self.rewrite([] if self.tokenizer.begin is None else [self.tokenizer.begin])

    def hear(self, text: str) -> None:
        """Go on with this text; it is read when the model next writes."""
        ids = self.tokenizer.encode(text)
        self.ids += ids
        self.seen.read[0, ids] = True
        self.stream, self.ended = self.tokenizer.stream(), False

    def rewrite(self, ids: Sequence[int]) -> None:
        """All so far is this and nothing else. What the state has read stays read, if it begins so."""
        if self.ids[: self.read] != list(ids[: self.read]):
            self.state = None
        self.ids = list(ids)
        vocabulary = self.model.spec.vocabulary or self.tokenizer.vocabulary
        self.seen = Seen.of([self.ids], vocabulary, next(self.model.parameters()).device)
        self.stream, self.ended = self.tokenizer.stream(), False

    @torch.no_grad()
    def write(
        self, tokens: int = TOKENS, *, stop: str | Sequence[str] = (), show: Callable[[str], None] | None = None
    ) -> str:
        """What the model writes next: at most so many tokens, up to an end token or a stop string.

        A stop string is part of what was said, and so is what its last token brought with it. Half a character at the
        end is shown when the next turn completes it.
        """
        if tokens < 0 or not self.ids:
            raise ValueError(f"there must be a text to go on from, and tokens from 0 up; came {tokens}")
        check_longest(self.model, len(self.ids), tokens)
        self.model.eval()
        text = Writing(self.stream, Stops(stop), tokens + 1, show)  # 1 more, since it is not over after this turn
        self.last = text
        for _ in range(tokens):
            if self.ended or text.ended:
                break
            drawn = self.sampling.draw(self._logits(), [self.die], self.seen)
            self.seen.write(drawn)
            token = int(drawn)
            self.ids.append(token)
            self.ended = token in self.ends
            text.add(None if self.ended else token)
        text.pause()
        return text.text

    def _logits(self) -> Tensor:
        """(1, V) of the next token."""
        if self.state is None or len(self.ids) > self.room:  # one with more room reads all again
            self.read, self.room = 0, capacity(len(self.ids))
            self.state = self.model.init_state(1, capacity=self.room)
        ids = torch.tensor([self.ids[self.read :]], device=self.seen.read.device)
        logits = torch.empty(0)
        for part in ids.split(CHUNK, 1):
            logits, self.state = self.model(part, self.state)
        self.read = len(self.ids)
        return logits[:, -1]
