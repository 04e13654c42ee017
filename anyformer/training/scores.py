"""Scores: metrics of what was measured, with 95 % intervals by a bootstrap over its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anyformer.training.objectives.base import Figure

RESAMPLES = 2000
GROUPS = 1000  # of neighbouring units, at most: what is resampled, and so what bounds the memory that takes
LARGEST = 700.0  # nats: beyond, a perplexity is more than a float can hold
COUNTERS = ("tokens", "rows")  # marks that say how much was measured


@dataclass(frozen=True)
class Result:
    """metrics: name -> value. counts: how many tokens or rows they are of.

    intervals: the metrics' 95 % ranges; {} where there is one unit only, which says nothing of others.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    counts: dict[str, int]


def scored(marks: Mapping[str, NDArray[np.float64]], figures: Mapping[str, Figure]) -> Result:
    """From the marks (units, …) of everything measured. Units are resampled whole: what is inside of one is alike."""
    units = len(next(iter(marks.values())))
    starts = np.linspace(0, units, min(units, GROUPS), endpoint=False).astype(int)
    grouped = {name: np.add.reduceat(values.astype(np.float64), starts) for name, values in marks.items()}
    draws = np.random.default_rng(0).integers(len(starts), size=(RESAMPLES, len(starts)))
    times = np.stack([np.bincount(draw, minlength=len(starts)) for draw in draws]).astype(np.float64)
    totals = {name: values.sum(0) for name, values in grouped.items()}
    again = {name: times @ values for name, values in grouped.items()}
    intervals = {}
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may have nothing that is measured
        metrics = {name: float(figure(totals)) for name, figure in figures.items()}
        for name, figure in figures.items():
            if units > 1 and not np.isnan(metrics[name]):
                low, high = np.nanquantile(figure(again), [0.025, 0.975])
                intervals[name] = float(low), float(high)
    return Result(metrics, intervals, {name: int(totals[name]) for name in COUNTERS if name in totals})


def perplexity(nats: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many equally likely tokens are as hard to tell; the largest numbers stand for all that are larger."""
    return np.exp(np.minimum(nats, LARGEST))


def per_token() -> dict[str, Figure]:
    """Loss and perplexity of marks `nats` and `tokens`."""
    return {
        "loss": lambda sums: sums["nats"] / sums["tokens"],
        "perplexity": lambda sums: perplexity(sums["nats"] / sums["tokens"]),
    }
