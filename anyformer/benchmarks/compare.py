"""Ours and its rivals, a repetition of each in turn, so that whatever else the machine does hits all alike.

The first repetition of each is not counted: it shows that all give the same numbers, and warms what can be warmed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import dist, hypot
from statistics import median
from typing import Any

from anyformer.benchmarks.base import Case, Once, Sample
from anyformer.core.errors import NumericalStop

OURS = "anyformer"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case beside one rival; of everything measured the median, of seconds also the least and the most.

    figures: "bytes" as `ours_bytes` and `rival_bytes`, and so on. facts: those of the case.
    """

    bench: str
    case: str
    rival: str
    ours_s: Sequence[float]
    rival_s: Sequence[float]
    limit_s: float | None
    threads: int
    figures: Mapping[str, float]
    facts: Mapping[str, float]

    @property
    def ratio(self) -> float:
        """Above 1 ours is the faster."""
        return median(self.rival_s) / median(self.ours_s)

    def to_dict(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return {
            "bench": self.bench,
            "case": self.case,
            "ours": OURS,
            "rival": self.rival,
            "ours_s": median(self.ours_s),
            "rival_s": median(self.rival_s),
            "ratio": self.ratio,
            "limit_s": self.limit_s,
            "threads": self.threads,
            "rounds": len(self.ours_s),
            "ours_min_s": min(self.ours_s),
            "ours_max_s": max(self.ours_s),
            "rival_min_s": min(self.rival_s),
            "rival_max_s": max(self.rival_s),
            **self.figures,
            **self.facts,
        }


def missing(rivals: Mapping[str, str]) -> list[str]:
    """The rivals that are not installed. rivals: their names -> the modules that they need."""
    return [name for name, module in rivals.items() if find_spec(module) is None]


def compared(bench: str, name: str, case: Case, without: Sequence[str], threads: int, rounds: int) -> Iterator[Row]:
    """A row for each rival. without: rivals that are left out."""
    sides: dict[str, Once] = {OURS: case.ours, **{rival: case.rivals[rival] for rival in case.rivals.keys() - without}}
    same_numbers(name, {side: once() for side, once in sides.items()}, case.tolerance)
    taken: dict[str, list[Sample]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in list(sides)[:: 1 if number % 2 else -1]:  # nobody always comes first
            taken[side].append(sides[side]())
    ours = taken.pop(OURS)
    for rival, theirs in taken.items():
        yield Row(
            bench=bench,
            case=name,
            rival=rival,
            ours_s=[sample.seconds for sample in ours],
            rival_s=[sample.seconds for sample in theirs],
            limit_s=case.limit_s,
            threads=threads,
            figures={**medians("ours", ours), **medians("rival", theirs)},
            facts=case.facts,
        )


def same_numbers(case: str, samples: Mapping[str, Sample], tolerance: float) -> None:
    """Refuse to compare the times of sides that do not compute the same."""
    ours = samples[OURS].answer
    for side, sample in samples.items():
        apart = dist(ours, sample.answer) / hypot(*ours) if len(ours) == len(sample.answer) else float("nan")
        if not apart <= tolerance:
            raise NumericalStop(
                f"{case}: {OURS} and {side} give different numbers ({apart:.2g} apart beside their length, {tolerance} "
                "is allowed), so their times are not compared"
            )


def medians(side: str, samples: Sequence[Sample]) -> dict[str, float]:
    """What was measured beside the seconds."""
    return {f"{side}_{name}": median(sample.figures[name] for sample in samples) for name in sorted(samples[0].figures)}
