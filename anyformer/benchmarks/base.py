"""A benchmark: cases, each of which says how ours and its rivals are run once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Sample:
    """One repetition.

    answer: the numbers that came out, by which both sides are proven to do the same work. figures: what was measured
    beside the seconds, such as "bytes".
    """

    seconds: float
    answer: Sequence[float]
    figures: Mapping[str, float]


Once = Callable[[], Sample]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is compared.

    ours, rivals: run it once, in this process or in one of its own. tolerance: how far apart the answers may be, beside
    their length. limit_s: the least that the hardware allows; None: not known. facts: what else a row says, such as
    "weights_bytes".
    """

    ours: Once
    rivals: Mapping[str, Once]
    tolerance: float
    limit_s: float | None
    facts: Mapping[str, float]


class Benchmark(ABC):
    """cases: their names, which are part of the surface. rivals: their names -> the modules that they need."""

    cases: ClassVar[tuple[str, ...]]
    rivals: ClassVar[Mapping[str, str]]

    @abstractmethod
    def opened(self, case: str, threads: int) -> AbstractContextManager[Case]:
        """A case, ready to run; what it has written is removed when it is closed."""
