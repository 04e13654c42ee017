"""A pattern says which pairs of tokens may meet: a predicate on where two tokens are, composed with &, | and ~.

`sees` is the definition. `reach`, `labels`, `ahead` and `keeps` are what caches and models need to know about it
without looking at tokens. Text and value are two forms of one thing: `str(pattern)` and `parse` (in grammar.py).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from enum import IntEnum
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from anyformer.core.spec import Rows, Spec, positional_spec

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.context import Where


class Ahead(IntEnum):
    """How far a query may see later tokens."""

    NONE = 0
    PREFIX = 1
    ALL = 2


class Pattern(Spec):
    """Which keys a query sees."""

    @abstractmethod
    def sees(self, q: Where, k: Where) -> Tensor:
        """True where the pair meets; q and k broadcast against each other: (B, T, 1) and (B, 1, S) -> (B, T, S)."""

    def reach(self, restarts: bool = False) -> tuple[float, float]:
        """(first, last): every past key that is seen is among the row's first `first` or last `last` tokens.

        restarts: a row may hold several texts, so that a text's first tokens can be anywhere in it.
        """
        return 0, math.inf

    def labels(self) -> frozenset[str]:
        """The labels of tokens that `sees` reads."""
        return frozenset()

    def check_labels(self, declared: frozenset[str], path: str) -> None:
        """Refuse to stand at `path` in a model that does not declare the labels that are read."""
        if missing := self.labels() - declared:
            raise ValueError(
                f"{path}: {str(self)!r} reads the labels {sorted(missing)}; the model declares {sorted(declared)}: add "
                "them to the model's labels"
            )

    def ahead(self, whole: frozenset[str] = frozenset()) -> Ahead:
        """The latest token that may be seen, whatever the tokens are.

        whole: labels whose marked tokens always come together, in one call, as a memory's vectors do.
        """
        return Ahead.ALL

    def keeps(self, k: Where, now: Tensor) -> Tensor | bool:
        """False for past keys that no query from `now` (B, 1) on sees; only lets a growing store drop more."""
        return True

    def __and__(self, other: Pattern) -> Pattern:
        return And((self, other))

    def __or__(self, other: Pattern) -> Pattern:
        return Or((self, other))

    def __invert__(self) -> Pattern:
        return Not(self)

    def __str__(self) -> str:
        from anyformer.patterns.grammar import write

        return write(self)


def parse(text: str) -> Pattern:
    """The pattern that a text such as `causal & (sinks(4) | window(512))` stands for."""
    from anyformer.patterns.grammar import Parser

    return Parser(text).pattern()


AnyPattern = Annotated[Pattern, Rows("anyformer.patterns", text=parse)]
Parts = Annotated[tuple[AnyPattern, ...], Field(min_length=2)]


@positional_spec
class And(Pattern):
    """Seen by every part."""

    parts: Parts

    @field_validator("parts")
    @classmethod
    def _flat(cls, parts: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
        return tuple(inner for part in parts for inner in (part.parts if isinstance(part, And) else (part,)))

    def sees(self, q: Where, k: Where) -> Tensor:
        return reduce(and_, (part.sees(q, k) for part in self.parts))

    def reach(self, restarts: bool = False) -> tuple[float, float]:
        return sorted([part.reach(restarts) for part in self.parts], key=sum)[0]  # min with a key cannot be compiled

    def labels(self) -> frozenset[str]:
        return frozenset().union(*(part.labels() for part in self.parts))

    def ahead(self, whole: frozenset[str] = frozenset()) -> Ahead:
        return min(part.ahead(whole) for part in self.parts)

    def keeps(self, k: Where, now: Tensor) -> Tensor | bool:
        return reduce(and_, (part.keeps(k, now) for part in self.parts))


@positional_spec
class Or(Pattern):
    """Seen by some part."""

    parts: Parts

    @field_validator("parts")
    @classmethod
    def _flat(cls, parts: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
        return tuple(inner for part in parts for inner in (part.parts if isinstance(part, Or) else (part,)))

    def sees(self, q: Where, k: Where) -> Tensor:
        return reduce(or_, (part.sees(q, k) for part in self.parts))

    def reach(self, restarts: bool = False) -> tuple[float, float]:
        reaches = [part.reach(restarts) for part in self.parts]
        return max(first for first, _ in reaches), max(last for _, last in reaches)

    def labels(self) -> frozenset[str]:
        return frozenset().union(*(part.labels() for part in self.parts))

    def ahead(self, whole: frozenset[str] = frozenset()) -> Ahead:
        return max(part.ahead(whole) for part in self.parts)

    def keeps(self, k: Where, now: Tensor) -> Tensor | bool:
        return reduce(or_, (part.keeps(k, now) for part in self.parts))


@positional_spec
class Not(Pattern):
    """Not seen by the part."""

    part: AnyPattern

    def sees(self, q: Where, k: Where) -> Tensor:
        return ~self.part.sees(q, k)

    def labels(self) -> frozenset[str]:
        return self.part.labels()
