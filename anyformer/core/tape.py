"""The tape reads and replaces: named points at which values are recorded or substituted.

A point's name is the path of the layer and of the value: `body.blocks.3.mixer.weights`. Patterns use `*` for one step.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Change = Callable[[Tensor], Tensor]
Key = tuple[str, tuple[int, ...]]


def matches(pattern: str, name: str) -> bool:
    """Whether `*` and the like, step by step, make `pattern` into `name`."""
    steps, names = pattern.split("."), name.split(".")
    return len(steps) == len(names) and all(fnmatch.fnmatchcase(n, s) for n, s in zip(names, steps, strict=True))


class Tape:
    """`with_tape = model(ids, tape=Tape(record=["body.blocks.*.mixer.weights"]))`.

    record: patterns of the points to keep, in `values` under (name, call); a recomputed point is overwritten.
    change: pattern -> what to put in a point's place (patching, ablation, steering).
    losses: losses beside the main one, under (name, call).
    """

    def __init__(self, record: Sequence[str] = (), change: Mapping[str, Change] | None = None) -> None:
        self.record = tuple(record)
        self.change = dict(change or {})
        self.values: dict[Key, Tensor] = {}
        self.losses: dict[Key, Tensor] = {}

    def wants(self, name: str) -> bool:
        """Whether the point is recorded or changed: values that cost something are made only then."""
        return any(matches(pattern, name) for pattern in (*self.record, *self.change))

    def point(self, name: str, call: tuple[int, ...], value: Tensor) -> Tensor:
        """Change, then record, the value of a point."""
        for pattern, change in self.change.items():
            if matches(pattern, name):
                value = change(value)
        if any(matches(pattern, name) for pattern in self.record):
            self.values[name, call] = value
        return value

    def __getitem__(self, name: str) -> Tensor:
        """The only recorded value of that name."""
        found = [value for (point, _), value in self.values.items() if point == name]
        if len(found) != 1:
            raise ValueError(f"the tape holds {len(found)} values of {name!r}; it has: {sorted(self.values)}")
        return found[0]
