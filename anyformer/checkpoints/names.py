"""Names of tensors: one table for each model type, read both ways.

    "model.layers.{i}.self_attn.q_proj.weight": "body.blocks.{i}.mixer.q.weight",
    "h.{i}.attn.c_attn.weight": Fused(("body.blocks.{i}.mixer.q.weight", …), turned=True),

On the left is a tensor of the file, on the right one of ours or a rule that makes it of ours, and back; {i}, {e}, … are
numbers. Every tensor of a file must have a row and every parameter a tensor. A row whose parameter a declaration lacks
is left out; a row of None is a tensor that says nothing, such as a table of positions that is computed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule(ABC):
    """How one tensor of a file is made of ours. ours: their names, with the numbers still to be filled in."""

    ours: tuple[str, ...]

    @abstractmethod
    def split(self, theirs: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        """Ours from theirs; a shape that does not fit is a ValueError or RuntimeError."""

    @abstractmethod
    def join(self, ours: Sequence[Tensor]) -> Tensor:
        """Theirs from ours."""


@dataclass(frozen=True)
class Same(Rule):
    """The same tensor under another name."""

    def split(self, theirs: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        return (theirs,)

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        return ours[0]


@dataclass(frozen=True)
class Fused(Rule):
    """Several, one after the other along the rows. turned: along the columns (GPT-2's Conv1D); vectors do not turn."""

    turned: bool = False

    def split(self, theirs: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        whole = theirs.mT if self.turned and theirs.dim() > 1 else theirs
        return whole.split([shape[0] for shape in shapes])

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        whole = ours[0] if len(ours) == 1 else torch.cat(list(ours))
        return whole.mT if self.turned and whole.dim() > 1 else whole


@dataclass(frozen=True)
class Interleaved(Rule):
    """Several, a row of each in turn (GPT-OSS: gate and up). turned: a column of each; vectors do not turn."""

    turned: bool = False

    def split(self, theirs: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        whole = theirs.mT if self.turned and theirs.dim() > 1 else theirs
        return [whole[at :: len(shapes)] for at in range(len(shapes))]

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        whole = torch.stack(list(ours), 1).flatten(0, 1)
        return whole.mT if self.turned and whole.dim() > 1 else whole


@dataclass(frozen=True)
class ByHead(Rule):
    """Several, group of heads by group of heads: for each of `groups`, the rows of the first, then of the second, …

    (GPT-NeoX and BLOOM: q, k and v of each head; Falcon: the queries of a group, then its key and its value.)
    """

    groups: int

    def split(self, theirs: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        rows = [shape[0] // self.groups for shape in shapes]
        parts = theirs.unflatten(0, (self.groups, -1)).split(rows, 1)
        return [part.flatten(0, 1) for part in parts]

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.unflatten(0, (self.groups, -1)) for part in ours], 1).flatten(0, 1)


@dataclass(frozen=True)
class Shaped(Rule):
    """The same numbers in another shape, which is `shape` in the file (a convolution that is a linear map here)."""

    shape: Shape

    def split(self, theirs: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        if theirs.shape != self.shape:
            raise ValueError(f"should have the shape {self.shape}")
        return (theirs.reshape(shapes[0]),)

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        return ours[0].reshape(self.shape)


@dataclass(frozen=True)
class Stacked(Rule):
    """All of ours, numbered {e}, as one tensor with an axis more (experts). rule: of each; count: how many."""

    count: int
    rule: Rule

    def split(self, theirs: Tensor, shapes: Sequence[Shape]) -> Sequence[Tensor]:
        if len(theirs) != self.count:
            raise ValueError(f"should be a stack of {self.count}")
        each = len(shapes) // self.count
        return [
            ours for index, one in enumerate(theirs) for ours in self.rule.split(one, shapes[index * each :][:each])
        ]

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        each = len(ours) // self.count
        return torch.stack([self.rule.join(ours[index * each :][:each]) for index in range(self.count)])


def stacked(count: int, rule: Rule) -> Stacked:
    """Theirs is a stack of `count` times what `rule` makes of ours of number {e}."""
    ours = tuple(name.replace("{e}", str(index)) for index in range(count) for name in rule.ours)
    return Stacked(ours, count, rule)


Names = Mapping[str, str | Rule | None]


def sides(names: Mapping[str, str]) -> dict[str, str]:
    """The weight and the bias of each."""
    return {f"{theirs}.{side}": f"{ours}.{side}" for theirs, ours in names.items() for side in ("weight", "bias")}


@dataclass(frozen=True)
class Link:
    """One tensor of a file and ours that it becomes."""

    theirs: str
    ours: tuple[str, ...]
    rule: Rule


def links(names: Names, ours: Collection[str]) -> list[Link]:
    """Every tensor that a file of this table has, for a model with these parameters."""
    found: list[Link] = []
    for theirs, row in names.items():
        if row is None:
            continue
        rule = Same((row,)) if isinstance(row, str) else row
        for numbers in _fits(rule.ours[0], ours):
            found.append(Link(_filled(theirs, numbers), tuple(_filled(name, numbers) for name in rule.ours), rule))
    return found


def says_nothing(names: Names, theirs: str) -> bool:
    """Whether a tensor of a file has a row of None."""
    return any(row is None and _pattern(name).fullmatch(theirs) for name, row in names.items())


def _fits(name: str, ours: Collection[str]) -> Iterator[dict[str, str]]:
    """The numbers with which a name of the table is one of ours."""
    if "{" not in name:
        if name in ours:
            yield {}
        return
    pattern = _pattern(name)
    for candidate in ours:
        if fit := pattern.fullmatch(candidate):
            yield fit.groupdict()


def _pattern(name: str) -> re.Pattern[str]:
    seen: set[str] = set()

    def group(letter: str) -> str:
        if letter in seen:
            return f"(?P={letter})"
        seen.add(letter)
        return rf"(?P<{letter}>\d+)"

    parts = re.split(r"\{(\w)\}", name)
    return re.compile("".join(group(part) if at % 2 else re.escape(part) for at, part in enumerate(parts)))


def _filled(name: str, numbers: Mapping[str, str]) -> str:
    for letter, number in numbers.items():
        name = name.replace(f"{{{letter}}}", number)
    return name
