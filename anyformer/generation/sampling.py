"""How the next token is drawn from the logits: penalties, temperature, top-k, top-p (Holtzman et al. 2020), min-p.

For a token seen before, repetition (Keskar et al. 2019): l -> l / r where l > 0, else l r; for one written n times:
l -> l - presence - n frequency. Then p = softmax(l / temperature), and of these: the k likeliest; the fewest that reach
top-p; those with p_i >= min-p max p (Nguyen et al. 2024). What is kept is scaled to sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Generator, Tensor

from anyformer.core.errors import NumericalStop


@dataclass(frozen=True)
class Seen:
    """read: (B, V), the tokens of a row's prompt. written: (B, V), how often the row wrote it, counted in place."""

    read: Tensor
    written: Tensor

    @staticmethod
    def of(prompts: Sequence[Sequence[int]], vocabulary: int, device: torch.device) -> Seen:
        """Rows that have read their prompts and written nothing."""
        read = torch.zeros(len(prompts), vocabulary, dtype=torch.bool)
        for row, ids in enumerate(prompts):
            read[row, list(ids)] = True
        return Seen(read.to(device), torch.zeros(read.shape, dtype=torch.long, device=device))

    def write(self, tokens: Tensor) -> None:
        """One more token (B,) of each row."""
        self.written.scatter_add_(1, tokens[:, None], torch.ones_like(tokens)[:, None])


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """greedy: the likeliest token, always; temperature 0 is the same.

    top_k: only the k likeliest. top_p: only the fewest tokens whose probabilities reach p, the one that crosses
    included. min_p: only tokens with at least this part of the likeliest one's probability. repetition_penalty: of
    tokens that the prompt or the text has; 1 changes nothing. presence_penalty, frequency_penalty: of tokens that the
    text has, once and each time; 0 changes nothing.
    """

    greedy: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self) -> None:
        if not isfinite(self.temperature) or self.temperature < 0:
            raise ValueError(f"temperature must be a number from 0 up; came {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1; came {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1; came {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1; came {self.min_p}")
        if not isfinite(self.repetition_penalty) or self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty must be a number above 0; came {self.repetition_penalty}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a number; came {getattr(self, name)}")

    @property
    def draws(self) -> bool:
        """Whether anything is left to chance."""
        return not self.greedy and self.temperature > 0

    @property
    def penalises(self) -> bool:
        """Whether it matters what was seen."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)

    def probabilities(self, logits: Tensor, seen: Seen | None = None) -> Tensor:
        """(B, V) -> (B, V), float64 so that sums are sums; zero for what is never drawn. seen: None: nothing yet."""
        logits = logits.double() if seen is None else self.penalised(logits.double(), seen)
        check_logits(logits)
        largest, best = logits.max(-1, keepdim=True)
        if not self.draws:
            return torch.zeros_like(logits).scatter(-1, best, 1.0)
        # the largest becomes 0 first, so that no temperature can overflow
        logits = (logits - largest) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            kept = logits.topk(self.top_k, dim=-1).indices
            logits = torch.full_like(logits, -torch.inf).scatter(-1, kept, logits.gather(-1, kept))
        probabilities = logits.softmax(-1)
        if self.top_p is not None and self.top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            ordered = ordered * (ordered.cumsum(-1) - ordered < self.top_p)  # what is reached before it
            probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
        if self.min_p is not None:
            least = self.min_p * probabilities.amax(-1, keepdim=True)
            probabilities = probabilities.masked_fill(probabilities < least, 0)
        return probabilities / probabilities.sum(-1, keepdim=True)

    def penalised(self, logits: Tensor, seen: Seen) -> Tensor:
        """(B, V) -> (B, V): less for what was seen."""
        written = seen.written > 0
        logits = repeated(logits, seen.read | written, self.repetition_penalty)
        return logits - self.presence_penalty * written - self.frequency_penalty * seen.written

    def draw(self, logits: Tensor, dice: list[Generator], seen: Seen | None = None) -> Tensor:
        """(B, V) -> ids (B,); row i throws its own dice, so that a batch draws what its rows alone would."""
        probabilities = self.probabilities(logits, seen)
        thrown = torch.stack([torch.rand((), generator=die, dtype=torch.float64) for die in dice])
        below = probabilities.cumsum(-1) <= thrown.to(logits.device)[:, None]
        return below.sum(-1).clamp(max=last_possible(probabilities))


def repeated(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """(B, V) -> (B, V): less for what was seen (B, V), where the penalty is above 1."""
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def check_logits(logits: Tensor) -> None:
    """Refuse rows (B, V) of which no token can be taken."""
    largest = logits.amax(-1)
    if not bool(largest.isfinite().all()):
        raise NumericalStop(f"a logit is {float(largest.sum())}, so no token can be drawn: are the weights sound?")


def last_possible(probabilities: Tensor) -> Tensor:
    """The last token of each row that can be drawn: sums that round below 1 must not reach beyond it."""
    places = torch.arange(probabilities.shape[-1], device=probabilities.device)
    return torch.where(probabilities > 0, places, 0).amax(-1)
