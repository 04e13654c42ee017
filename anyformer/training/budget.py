"""How far a run has come, and how long it is: what schedules and progress bars ask."""

from __future__ import annotations

from dataclasses import dataclass, replace

from anyformer.core.spec import LARGEST
from anyformer.recipes.schema import Budget


@dataclass
class Spent:
    """What a run has used. seconds: of training, pauses between a stop and a resume left out."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


def in_tokens(budget: Budget, flops_a_token: float) -> Budget:
    """The budget with its FLOPs as the tokens that they buy: what the other functions here take."""
    if budget.flops is None:
        return budget
    bought = max(1, round(budget.flops / flops_a_token))
    return replace(budget, flops=None, tokens=min(bought, budget.tokens or LARGEST))


def progress(budget: Budget, spent: Spent) -> float:
    """The fraction of the budget that is used, 0 to 1: of whichever part of it ends first."""
    pairs = [(spent.steps, budget.steps), (spent.tokens, budget.tokens), (spent.seconds, budget.seconds)]
    return min(1.0, max(used / limit for used, limit in pairs if limit is not None))


def total_steps(budget: Budget, spent: Spent, tokens_per_step: float) -> float:
    """How many steps the whole run will have; with seconds in the budget, an estimate that grows better."""
    known = []
    if budget.steps is not None:
        known.append(float(budget.steps))
    if budget.tokens is not None:
        known.append(budget.tokens / tokens_per_step)
    if budget.seconds is not None and spent.steps:
        known.append(spent.steps / max(spent.seconds, 1e-9) * budget.seconds)
    return min(known, default=float("inf"))
