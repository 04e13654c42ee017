"""How the next token is drawn from the logits: temperature, then top-k, then top-p (Holtzman et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Generator, Tensor

from anyformer.core.errors import NumericalStop


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """greedy: the likeliest token, always; temperature 0 is the same.

    top_k: only the k likeliest. top_p: only the fewest tokens whose probabilities reach p, the one that crosses
    included.
    """

    greedy: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not isfinite(self.temperature) or self.temperature < 0:
            raise ValueError(f"temperature must be a number from 0 up; came {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1; came {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1; came {self.top_p}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, V) -> (B, V), float64 so that sums are sums; zero for what is never drawn."""
        logits = logits.double()
        largest, best = logits.max(-1, keepdim=True)
        if not bool(largest.isfinite().all()):
            raise NumericalStop(f"a logit is {float(largest.sum())}, so no token can be drawn: are the weights sound?")
        if self.greedy or self.temperature == 0:
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
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities

    def draw(self, logits: Tensor, dice: list[Generator]) -> Tensor:
        """(B, V) -> ids (B,); row i throws its own dice, so that a batch draws what its rows alone would."""
        probabilities = self.probabilities(logits)
        thrown = torch.stack([torch.rand((), generator=die, dtype=torch.float64) for die in dice])
        below = probabilities.cumsum(-1) <= thrown.to(logits.device)[:, None]
        return below.sum(-1).clamp(max=last_possible(probabilities))


def last_possible(probabilities: Tensor) -> Tensor:
    """The last token of each row that can be drawn: sums that round below 1 must not reach beyond it."""
    places = torch.arange(probabilities.shape[-1], device=probabilities.device)
    return torch.where(probabilities > 0, places, 0).amax(-1)
