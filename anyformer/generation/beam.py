"""Beam search (Sutskever et al. 2014): the K likeliest texts so far go on, step by step; the best that ended wins.

score(Y) = log p(Y) / lp(Y), lp(Y) = ((5 + |Y|) / 6)^alpha (Wu et al. 2016, equation 14); |Y| counts the end token.
Vaswani et al. (2017) take K = 4 and alpha = 0.6. As in their code, ends among the 2 K likeliest continuations count,
and a search is over when no text that goes on could score more, were all that is to come certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.model import Model
from anyformer.core.tree import tree, tree_map
from anyformer.generation.prompts import Prompts, read
from anyformer.generation.sampling import check_logits


@dataclass(frozen=True, kw_only=True)
class Beams:
    """beams: K; 1 is greedy. length_penalty: alpha; 0 compares log-probabilities, more favours longer texts.

    penalty: gnmt, or power: lp(Y) = |Y|^alpha, which is Transformers'.
    """

    beams: int = 4
    length_penalty: float = 0.6
    penalty: Literal["gnmt", "power"] = "gnmt"

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1; came {self.beams}")
        if not -5 <= self.length_penalty <= 5:
            raise ValueError(f"length_penalty must be from -5 to 5; came {self.length_penalty}")

    def divisor(self, length: int) -> float:
        """lp of a text of so many tokens, at least 1."""
        return (length if self.penalty == "power" else (5 + length) / 6) ** self.length_penalty


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
    model: Model, prompts: Prompts, beams: Beams, *, end: int | None = None, best: int = 1
) -> list[list[Hypothesis]]:
    """The `best` texts found after each prompt, best first. end: the token that ends a text.

    The beams of all rows are one batch, which a row leaves when its search is over.
    """
    width, end = beams.beams, -1 if end is None else end
    if not 1 <= best <= width:
        raise ValueError(f"{best} of the best are wanted; there are from 1 to the number of beams, {width}")
    model.eval()
    results = [[] if count else [Hypothesis([], 0.0)] for count in prompts.counts]
    rows = [row for row, count in enumerate(prompts.counts) if count]  # whose search is not over
    if not rows:
        return results
    logits, state = read(model, prompts)
    index = torch.tensor(rows, device=logits.device).repeat_interleave(width)
    logits, state = logits[index], state.select(index)
    none = logits.new_full((len(rows), width), -inf, dtype=torch.promote_types(logits.dtype, torch.float32))
    found = Texts(none[:, :best], index.new_empty(len(rows), best, 0))
    going = Texts(none.index_fill(1, index.new_zeros(1), 0), index.new_empty(len(rows), width, 0))  # all begin alike
    counts = index.new_tensor([prompts.counts[row] for row in rows])
    last = none.new_tensor([beams.divisor(prompts.counts[row]) for row in rows])
    length = 0
    while rows:
        length += 1
        more, beam = continued(logits, going)
        ends = more.ids[:, :, -1] == end
        complete = ends | (counts == length)[:, None]
        if width == 1:
            complete[:, 1:] = False  # greedy ends with the likeliest token or not yet
        scores = (more.scores / beams.divisor(length)).masked_fill(~complete, -inf)
        found, _ = found.join(Texts(scores, more.ids)).best(best)
        going, on = Texts(more.scores.masked_fill(ends, -inf), more.ids).best(width)
        likeliest = going.scores[:, 0]
        bound = torch.maximum(likeliest / beams.divisor(length + 1), likeliest / last)
        over = (counts == length) | (found.scores[:, -1] >= bound)
        if width == 1:
            over = over | complete[:, 0]
        left = []
        for at, is_over in enumerate(over.tolist()):
            if is_over:
                results[rows[at]] = hypotheses(found, at, end)
            else:
                left.append(at)
        rows = [rows[at] for at in left]
        if rows:
            kept = index.new_tensor(left)
            index = (kept[:, None] * width + beam.gather(1, on)[kept]).flatten()
            going, found, counts, last = tree_map(lambda x, kept=kept: x[kept], (going, found, counts, last))
            logits, state = model(going.ids[:, :, -1].reshape(-1, 1), state.select(index))
            logits = logits[:, -1]
    return results


def continued(logits: Tensor, going: Texts) -> tuple[Texts, Tensor]:
    """The 2 K likeliest texts of one token more, best first, and the beams (R, 2 K) that they continue.

    logits: (R K, V) after the K texts of each row. A text ends in one way, so at least K of the 2 K go on.
    """
    check_logits(logits)
    sums = going.scores
    sums = logits.log_softmax(-1, sums.dtype).unflatten(0, sums.shape) + sums[..., None]  # (R, K, V)
    likeliest, place = sums.flatten(1).topk(min(2 * sums.shape[1], sums[0].numel()))
    beam, token = place // sums.shape[2], place % sums.shape[2]
    ids = going.ids.gather(1, beam[..., None].expand(-1, -1, going.ids.shape[2]))
    return Texts(likeliest, torch.cat([ids, token[..., None]], 2)), beam


def hypotheses(found: Texts, row: int, end: int) -> list[Hypothesis]:
    """What was found for a row."""
    texts = zip(found.ids[row].tolist(), found.scores[row].tolist(), strict=True)
    return [
        Hypothesis([token for token in ids if token not in (-1, end)], score) for ids, score in texts if score > -inf
    ]
