"""A case: a tiny model around one part, in float64 with large weights, and texts for it.

Small initial weights hide wrong nonlinearities, so every parameter is redrawn from N(0, 0.5²).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.nn import Parameter

from anyformer.core.context import Source
from anyformer.core.modality import Modality
from anyformer.core.model import Model
from anyformer.core.spec import ModelSpec, Spec
from anyformer.core.state import State
from anyformer.laws.guess import VOCABULARY

ROWS = 3
PREFIX = 4  # tokens that the label `prefix` marks
SOURCE = 7  # tokens of a source


@runtime_checkable
class Encodes(Protocol):
    """A model that reads a source first."""

    def encode(self, ids: Tensor, lengths: Tensor | None = None, side: str = "right") -> Source: ...


class Way(NamedTuple):
    """How a state is kept: its size, how it is written, and how much of it may be taken back."""

    capacity: int | None = None
    inplace: bool = False
    slack: int = 0

    def __str__(self) -> str:
        size = "no capacity" if self.capacity is None else f"capacity {self.capacity}"
        return f"{size}, {'in place' if self.inplace else 'functional'}, slack {self.slack}"


GROWING = Way()


def ways(capacity: int, slack: int = 0) -> tuple[Way, ...]:
    """Growing, bounded and functional, bounded and in place."""
    return Way(None, False, slack), Way(capacity, False, slack), Way(capacity, True, slack)


def seeded(*numbers: int) -> Generator:
    """A generator of its own for every tuple of numbers."""
    return Generator().manual_seed(functools.reduce(lambda a, b: a * 1009 + b, numbers, 7))


@dataclass(frozen=True)
class Text:
    """ids (B, T); labels: name -> (B, T); real (B, T), None where every place has a token.

    Where something else enters than ids, it stands in their place, whole.
    """

    ids: Tensor
    labels: Mapping[str, Tensor]
    real: Tensor | None = None

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    @property
    def given(self) -> dict[str, Any]:
        """What a model is told beside the ids."""
        return {"labels": dict(self.labels), "real": self.real}

    def between(self, first: int, last: int) -> Text:
        """Places `first` to `last - 1`."""
        real = None if self.real is None else self.real[:, first:last]
        return Text(self.ids[:, first:last], {name: x[:, first:last] for name, x in self.labels.items()}, real)

    def row(self, index: int) -> Text:
        """One row's tokens alone, (1, n), without padding."""
        if self.ids.is_floating_point():
            here = None if self.real is None else self.real[index, None]
            return Text(self.ids[index, None], {name: x[index, None] for name, x in self.labels.items()}, here)
        kept = torch.ones_like(self.ids[index], dtype=torch.bool) if self.real is None else self.real[index]
        labels = {name: x[index, kept][None] for name, x in self.labels.items()}
        return Text(self.ids[index, kept][None], labels)

    def take(self, at: Tensor, length: int) -> Text:
        """From every row `length` tokens, beginning at its own place `at` (B,)."""
        index = at[:, None] + torch.arange(length)
        return Text(self.ids.gather(1, index), {name: x.gather(1, index) for name, x in self.labels.items()})

    def laid(self, real: Tensor) -> Text:
        """These tokens in the places that are real, (B, L), something else in the others."""
        if self.ids.is_floating_point():
            return Text(self.ids, self.labels, real)
        place = (real.long().cumsum(1) - 1).clamp(min=0)
        ids = torch.where(real, self.ids.gather(1, place), (self.ids.gather(1, place) + 11) % VOCABULARY)
        return Text(ids, {name: x.gather(1, place) for name, x in self.labels.items()}, real)


@functools.lru_cache(maxsize=128)
def built(spec: ModelSpec) -> Model:
    """The model with its weights redrawn; laws that change a model make one of their own."""
    return redraw(spec.build(dtype=torch.float64), 0.5)


@torch.no_grad()
def redraw(model: Model, std: float) -> Model:
    """Every parameter anew from N(0, std²)."""
    generator = seeded(1)
    for parameter in model.parameters():
        parameter.copy_(torch.empty(parameter.shape, dtype=torch.float64).normal_(0, std, generator=generator))
    return model


def learnt(model: Model) -> dict[str, Parameter]:
    """Every parameter that has gradients: frozen ones have none."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@dataclass(frozen=True)
class Case:
    """A part in a model. at: the part's path. exempt: laws, or what laws need -> why the part cannot keep them."""

    name: str
    part: Spec
    spec: ModelSpec
    at: str
    exempt: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def model(self) -> Model:
        return built(self.spec)

    @property
    def has_state(self) -> bool:
        return "state" not in self.exempt

    @property
    def pools(self) -> bool:
        """Whether an output belongs to a row, not to a token."""
        return self.model.head is not None and self.model.head.pools

    @property
    def first(self) -> int:
        """Tokens that must come in one call at a text's beginning."""
        return PREFIX if "prefix" in self.spec.labels else 1

    def longest(self, length: int) -> int:
        """`length`, or the longest text that the model can take."""
        return min(length, self.model.longest or length)

    def text(self, length: int, rows: int = ROWS, seed: int = 0) -> Text:
        """A random text, with every label that the model declares."""
        length = self.longest(length)
        generator = seeded(2, seed)
        if isinstance(self.model.embedding, Modality):
            shape = rows, *self.model.embedding.shape(length)
            return Text(torch.randn(shape, dtype=torch.float64, generator=generator), {})
        ids = torch.randint(VOCABULARY, (rows, length), generator=generator)
        labels = {name: self._label(name, rows, length, generator) for name in self.spec.labels}
        return Text(ids, labels)

    def _label(self, name: str, rows: int, length: int, generator: Generator) -> Tensor:
        if name == "prefix":
            return (torch.arange(length) < PREFIX).long().expand(rows, length)
        if name == "document":
            return (torch.rand(rows, length, generator=generator) < 0.2).long().cumsum(1)
        return torch.randint(3, (rows, length), generator=generator)

    def cuts(self, length: int, seed: int, longest: int = 9) -> tuple[int, ...]:
        """Random lengths of calls that add up; calls of one token are frequent."""
        generator, sizes = seeded(3, seed), []
        while (left := length - sum(sizes)) > 0:
            least = 1 if sizes else self.first
            once = torch.rand((), generator=generator) < 0.3
            size = 1 if once else int(torch.randint(1, longest + 1, (), generator=generator))
            sizes.append(min(max(size, least), left))
        return tuple(sizes)

    def sources(self, rows: Sequence[int] = range(ROWS), model: Model | None = None) -> dict[str, Source]:
        """What the model reads beside its text, for these rows; nothing for most models."""
        model = model or self.model
        if not isinstance(model, Encodes):
            return {}
        ids = torch.randint(VOCABULARY, (ROWS, SOURCE), generator=seeded(4))
        lengths = torch.tensor([SOURCE, 4, 1])
        device = next(model.parameters()).device
        return {"source": model.encode(ids[list(rows)].to(device), lengths[list(rows)].to(device))}

    def whole(self, text: Text, rows: Sequence[int] = range(ROWS), checkpoint: bool = False) -> Tensor:
        """The outputs of one call without a state: what all others are compared with."""
        return self.model(text.ids, **text.given, sources=self.sources(rows), checkpoint=checkpoint)

    def alone(self, text: Text) -> list[Tensor]:
        """The outputs of each row's tokens without padding and without the other rows, (n, …) each."""
        return [self.whole(text.row(i), [i])[0] for i in range(text.ids.shape[0])]

    def of_row(self, out: Tensor, index: int, real: Tensor) -> Tensor:
        """What `alone` has of one row, out of the outputs of all."""
        return out[index] if self.pools else out[index, real[index]]

    def state(self, way: Way = GROWING, rows: Sequence[int] = range(ROWS)) -> State:
        """A new state for these rows."""
        return self.model.init_state(
            len(rows), sources=self.sources(rows), capacity=way.capacity, slack=way.slack, inplace=way.inplace
        )

    def feed(self, text: Text, state: State, cuts: Sequence[int]) -> tuple[Tensor, State]:
        """The outputs of several calls, joined, and the state after them."""
        outs, at = [], 0
        for size in cuts:
            part = text.between(at, at + size)
            out, state = self.model(part.ids, state, **part.given)
            outs.append(out)
            at += size
        return torch.cat(outs, 1), state

    def changed(self, spec: ModelSpec) -> Case:
        """The same part in another model."""
        return replace(self, spec=spec)
