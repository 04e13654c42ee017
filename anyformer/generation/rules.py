"""Rules of what may come next: no n-gram twice (Paulus et al. 2018), least lengths, tokens that must or must not come.

They are for greedy, drawn and beam search alike: what they forbid has a logit, or a beam's log-probability, of -inf. In
the order of Transformers: n-grams, ends that come too early, the first and the last token, tokens that never come.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from anyformer.generation.prompts import Prompts, padded


@dataclass(frozen=True)
class SoFar:
    """What rules look at. ids: (B, T), prompts and texts; -1 before a shorter prompt. prompt: how many of the T.

    counts: (B,), how many tokens each may write. sources: (B, S), what an encoder read, and -1 after it.
    """

    ids: Tensor
    prompt: int
    counts: Tensor
    sources: Tensor

    @staticmethod
    def of(prompts: Prompts, device: torch.device) -> SoFar:
        """Prompts, and nothing written."""

        def rows(ids: Sequence[Sequence[int]], side: str) -> Tensor:
            tokens, real = padded(ids, side, device)
            return tokens.masked_fill(~real, -1)

        ids, counts = rows(prompts.ids, "left"), torch.tensor(prompts.counts, device=device)
        sources = ids[:, :0] if prompts.sources is None else rows(prompts.sources, "right")
        return SoFar(ids, ids.shape[1], counts, sources)

    @property
    def written(self) -> int:
        """How many tokens each row has written."""
        return self.ids.shape[1] - self.prompt

    def select(self, rows: Tensor) -> SoFar:
        """Some of them, in this order."""
        return SoFar(self.ids[rows], self.prompt, self.counts[rows], self.sources[rows])

    def write(self, tokens: Tensor) -> SoFar:
        """One more token (B,) of each row."""
        return SoFar(torch.cat([self.ids, tokens[:, None]], 1), self.prompt, self.counts, self.sources)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """no_repeat: so many tokens never come twice in prompt and text. no_repeat_source: nor again from the source.

    min_tokens: no text ends with fewer; min_length: nor do prompt and text together. first: the token after a prompt
    of one token, such as the language to translate to. last: one of these, where there is room for one more token.
    never: tokens that do not come; not_first: that do not come first.
    """

    no_repeat: int | None = None
    no_repeat_source: int | None = None
    min_tokens: int = 0
    min_length: int = 0
    first: int | None = None
    last: tuple[int, ...] = ()
    never: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("no_repeat", "no_repeat_source"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"{name} must be at least 1; came {size}")
        for name in ("min_tokens", "min_length"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0; came {getattr(self, name)}")

    def check(self, vocabulary: int) -> None:
        """Refuse tokens that there are not."""
        for token in (*(() if self.first is None else (self.first,)), *self.last, *self.never, *self.not_first):
            if not 0 <= token < vocabulary:
                raise ValueError(
                    f"a rule is for token {token}; the tokens of this model are from 0 to {vocabulary - 1}"
                )

    def apply(self, scores: Tensor, so_far: SoFar, ends: Collection[int]) -> Tensor:
        """(B, V) -> (B, V), of which -inf may not come. ends: the tokens that end a text."""
        size, written = scores.shape[1], so_far.written
        lengths = (so_far.ids >= 0).sum(1, keepdim=True)
        if self.no_repeat is not None:
            scores = scores.masked_fill(repeats(so_far.ids, so_far.ids, self.no_repeat, size), -inf)
        if self.no_repeat_source is not None:
            scores = scores.masked_fill(repeats(so_far.sources, so_far.ids, self.no_repeat_source, size), -inf)
        early = (lengths < self.min_length) | (written < self.min_tokens)
        scores = scores.masked_fill(early & among(ends, scores), -inf)
        begins = (lengths == 1) & (self.first is not None)
        if self.first is not None:
            scores = torch.where(begins, forced((self.first,), scores), scores)
        if self.last:
            scores = torch.where(so_far.counts[:, None] == written + 1, forced(self.last, scores), scores)
        # a token that had to come is not the first that was chosen
        second = (lengths == 2) & (written == 1) & (self.first is not None)
        chosen_first = second | ((written == 0) & ~begins)
        banned = among(self.never, scores) | (chosen_first & among(self.not_first, scores))
        return scores.masked_fill(banned, -inf)


def check_choice(left: bool) -> None:
    """Refuse to go on where the rules have left nothing."""
    if not left:
        raise ValueError("the rules leave no token that could come next: ask for fewer bans, or for fewer tokens")


def among(tokens: Collection[int], scores: Tensor) -> Tensor:
    """(V,): whether a token is one of these."""
    none = torch.zeros_like(scores[0], dtype=torch.bool)
    return none.index_fill(0, scores.new_tensor([*tokens], dtype=torch.long), True)


def forced(tokens: Collection[int], scores: Tensor) -> Tensor:
    """(V,): sure of one of these."""
    return torch.zeros_like(scores[0]).masked_fill(~among(tokens, scores), -inf)


def repeats(seen: Tensor, texts: Tensor, size: int, vocabulary: int) -> Tensor:
    """(B, V): the tokens with which the last ones of `texts` (B, T) would make `size` tokens that `seen` (B, S) has."""
    found = torch.zeros(len(seen), vocabulary + 1, dtype=torch.bool, device=seen.device)  # one that is not there
    if seen.shape[1] >= size and texts.shape[1] >= size - 1:
        windows, ending = seen.unfold(1, size, 1), texts[:, texts.shape[1] + 1 - size :]
        same = (windows[..., :-1] == ending[:, None]).all(-1) & (windows >= 0).all(-1)
        found.scatter_(1, torch.where(same, windows[..., -1].clamp(max=vocabulary), vocabulary), True)
    return found[:, :vocabulary]
