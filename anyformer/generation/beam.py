"""Beam search (Sutskever et al. 2014): the K likeliest texts so far go on, step by step; the best that ended wins.

score(Y) = log p(Y) / lp(Y), lp(Y) = ((5 + |Y|) / 6)^alpha (Wu et al. 2016, equation 14); |Y| counts the end token.
Vaswani et al. (2017) take K = 4 and alpha = 0.6. As in their code, ends among the 2 K likeliest continuations count,
and a search is over when no text that goes on could score more, were all that is to come certain. Published models come
with the rules of Transformers, which differ in all three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.model import Model
from anyformer.core.tree import tree, tree_map
from anyformer.generation.prompts import Prompts, ends_of, read
from anyformer.generation.rules import Rules, SoFar, check_choice
from anyformer.generation.sampling import check_logits, repeated


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """How beams are compared, and when that is over.

    beams: K; 1 is greedy. length_penalty: alpha; 0 compares log-probabilities, more favours longer texts.
    repetition_penalty: of log-probabilities, as in Sampling.
    """

    beams: int = 4
    length_penalty: float
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1; came {self.beams}")
        if not -5 <= self.length_penalty <= 5:
            raise ValueError(f"length_penalty must be from -5 to 5; came {self.length_penalty}")
        if not isfinite(self.repetition_penalty) or self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty must be a number above 0; came {self.repetition_penalty}")

    @abstractmethod
    def divisor(self, length: int) -> float:
        """lp of a text of so many tokens, at least 1."""

    @abstractmethod
    def candidates(self, ends: int) -> int:
        """How many of the likeliest continuations may be the end of a text, where so many tokens end one."""

    @abstractmethod
    def keeps(self, best: int) -> int:
        """How many of the texts that were found are kept for the `best` of them."""

    @abstractmethod
    def over(self, going: Tensor, found: Tensor, length: int, last: Tensor) -> Tensor:
        """(R,): whether no text that goes on is worth waiting for.

        going: (R,), the best log-probability. found: (R,), the worst score that is kept, -inf where there is room.
        length: of the texts that go on. last: (R,), lp of the longest text that may come.
        """


@dataclass(frozen=True, kw_only=True)
class Beams(Search):
    """Ends among all candidates count, and the search goes on while a text could score more.

    penalty: gnmt, or power: lp(Y) = |Y|^alpha, which is Transformers'.
    """

    length_penalty: float = 0.6
    penalty: Literal["gnmt", "power"] = "gnmt"

    def divisor(self, length: int) -> float:
        return (length if self.penalty == "power" else (5 + length) / 6) ** self.length_penalty

    def candidates(self, ends: int) -> int:
        return self.beams * (1 + max(1, ends))

    def keeps(self, best: int) -> int:
        return best

    def over(self, going: Tensor, found: Tensor, length: int, last: Tensor) -> Tensor:
        return found >= torch.maximum(going / self.divisor(length + 1), going / last)


@dataclass(frozen=True, kw_only=True)
class PublishedBeams(Search):
    """As Transformers compares them: lp(Y) = |Y|^alpha, and only ends among the K likeliest continuations count.

    early_stopping: of a search that has found K texts. True: it is over; False: when the best that goes on scores less,
    were it to end now; never: when it would even at its longest, as far as alpha favours that.
    """

    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def divisor(self, length: int) -> float:
        return length**self.length_penalty

    def candidates(self, ends: int) -> int:
        return self.beams

    def keeps(self, best: int) -> int:
        return self.beams

    def over(self, going: Tensor, found: Tensor, length: int, last: Tensor) -> Tensor:
        longest = self.early_stopping == "never" and self.length_penalty > 0
        over = found >= going / (last if longest else self.divisor(length))
        return over | (found > -inf) if self.early_stopping is True else over


@dataclass(frozen=True)
class Hypothesis:
    """A text that was found. ids: without the end token."""

    ids: list[int]
    score: float


@tree
class Texts:
    """N texts of each of R rows, of the same length. scores: (R, N). ids: (R, N, T), -1 after a text's end."""

    scores: Tensor
    ids: Tensor

    def best(self, count: int) -> tuple[Texts, Tensor]:
        """The best of each row, best first, and their places (R, count) among all."""
        scores, at = self.scores.topk(count)
        return Texts(scores, self.ids.gather(1, at[..., None].expand(-1, -1, self.ids.shape[2]))), at

    def join(self, longer: Texts) -> Texts:
        """These and others that are longer."""
        ids = F.pad(self.ids, (0, longer.ids.shape[2] - self.ids.shape[2]), value=-1)
        return Texts(torch.cat([self.scores, longer.scores], 1), torch.cat([ids, longer.ids], 1))


@torch.no_grad()
def beam_search(
    model: Model,
    prompts: Prompts,
    beams: Search,
    *,
    end: int | Collection[int] | None = None,
    best: int = 1,
    rules: Rules | None = None,
) -> list[list[Hypothesis]]:
    """The `best` texts found after each prompt, best first. end: the token that ends a text, or several of which
    each does. rules: of what may come next.

    The beams of all rows are one batch, which a row leaves when its search is over.
    """
    width, ends = beams.beams, ends_of(end)
    if not 1 <= best <= width:
        raise ValueError(f"{best} of the best are wanted; there are from 1 to the number of beams, {width}")
    model.eval()
    results = [[] if count else [Hypothesis([], 0.0)] for count in prompts.counts]
    rows = [row for row, count in enumerate(prompts.counts) if count]  # whose search is not over
    if not rows:
        return results
    logits, state = read(model, prompts)
    if rules is not None:
        rules.check(logits.shape[-1])
    index = torch.tensor(rows, device=logits.device).repeat_interleave(width)
    logits, state = logits[index], state.select(index)
    so_far = SoFar.of(prompts, logits.device).select(index)
    none = logits.new_full((len(rows), width), -inf, dtype=torch.promote_types(logits.dtype, torch.float32))
    found = Texts(none[:, : beams.keeps(best)], index.new_empty(len(rows), beams.keeps(best), 0))
    going = Texts(none.index_fill(1, index.new_zeros(1), 0), index.new_empty(len(rows), width, 0))  # all begin alike
    counts = index.new_tensor([prompts.counts[row] for row in rows])
    last = none.new_tensor([beams.divisor(prompts.counts[row]) for row in rows])
    length = 0
    while rows:
        length += 1
        more, beam = continued(scored(logits, going.scores.dtype, beams, so_far, ends, rules), going, len(ends))
        ended = torch.isin(more.ids[:, :, -1], index.new_tensor(sorted(ends)))
        complete = ended | (counts == length)[:, None]
        complete[:, beams.candidates(len(ends)) :] = False
        if width == 1:
            complete[:, 1:] = False  # greedy ends with the likeliest token or not yet
        scores = (more.scores / beams.divisor(length)).masked_fill(~complete, -inf)
        found, _ = found.join(Texts(scores, more.ids)).best(found.scores.shape[1])
        going, on = Texts(more.scores.masked_fill(ended, -inf), more.ids).best(width)
        over = (counts == length) | beams.over(going.scores[:, 0], found.scores[:, -1], length, last)
        if width == 1:
            over = over | complete[:, 0]
        left = []
        for at, is_over in enumerate(over.tolist()):
            if is_over:
                results[rows[at]] = hypotheses(found, at, ends)[:best]
                check_choice(bool(results[rows[at]]))
            else:
                left.append(at)
        rows = [rows[at] for at in left]
        if rows:
            kept = index.new_tensor(left)
            index = (kept[:, None] * width + beam.gather(1, on)[kept]).flatten()
            going, found, counts, last = tree_map(lambda x, kept=kept: x[kept], (going, found, counts, last))
            so_far = so_far.select(index).write(going.ids[:, :, -1].flatten())
            logits, state = model(so_far.ids[:, -1:], state.select(index))
            logits = logits[:, -1]
    return results


def scored(
    logits: Tensor, dtype: torch.dtype, beams: Search, so_far: SoFar, ends: Collection[int], rules: Rules | None
) -> Tensor:
    """(R K, V): the log-probability of each token, as penalties and rules have it."""
    check_logits(logits)
    scores = logits.log_softmax(-1, dtype)
    if beams.repetition_penalty != 1:
        seen = torch.zeros_like(scores, dtype=torch.bool)
        seen = seen.scatter(1, so_far.ids.where(so_far.ids >= 0, so_far.ids[:, -1:]), True)
        scores = repeated(scores, seen, beams.repetition_penalty)
    return scores if rules is None else rules.apply(scores, so_far, ends)


def continued(scores: Tensor, going: Texts, ends: int) -> tuple[Texts, Tensor]:
    """The 2 K likeliest texts of one token more, best first, and the beams (R, 2 K) that they continue.

    scores: (R K, V) after the K texts of each row. A text ends in one way, so at least K of the 2 K go on; where it
    ends in one of E ways, they are (1 + E) K.
    """
    sums = going.scores
    sums = scores.unflatten(0, sums.shape) + sums[..., None]  # (R, K, V)
    likeliest, place = sums.flatten(1).topk(min((1 + max(1, ends)) * sums.shape[1], sums[0].numel()))
    beam, token = place // sums.shape[2], place % sums.shape[2]
    ids = going.ids.gather(1, beam[..., None].expand(-1, -1, going.ids.shape[2]))
    return Texts(likeliest, torch.cat([ids, token[..., None]], 2)), beam


def hypotheses(found: Texts, row: int, ends: Collection[int]) -> list[Hypothesis]:
    """What was found for a row."""
    texts = zip(found.ids[row].tolist(), found.scores[row].tolist(), strict=True)
    return [
        Hypothesis([token for token in ids if token != -1 and token not in ends], score)
        for ids, score in texts
        if score > -inf
    ]
