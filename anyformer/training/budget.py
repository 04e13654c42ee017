"""How far a run has come, and how long it is: what schedules and progress bars ask."""

from __future__ import annotations

from dataclasses import dataclass

from anyformer.recipes.schema import Budget


@dataclass
class Spent:
    """What a run has used. seconds: of training, pauses between a stop and a resume left out."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


def progress(budget: Budget, spent: Spent) -> float:
    """The fraction of the budget that is used, 0 to 1: of whichever part of it ends first."""
    pairs = [(spent.steps, budget.steps), (spent.tokens, budget.tokens), (spent.seconds, budget.seconds)]
    return min(1.0, max(used / limit for used, limit in pairs if limit is not None))


def total_steps(budget: Budget, spent: Spent, tokens_per_step: int) -> float:
    """How many steps the whole run will have; with seconds in the budget, an estimate that grows better."""
    known = []
    if budget.steps is not None:
        known.append(float(budget.steps))
    if budget.tokens is not None:
        known.append(budget.tokens / tokens_per_step)
    if budget.seconds is not None and spent.steps:
        known.append(spent.steps / max(spent.seconds, 1e-9) * budget.seconds)
    return min(known, default=float("inf"))
