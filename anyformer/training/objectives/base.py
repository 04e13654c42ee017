"""What an objective is: it says which data it takes, what a batch of it is, what is minimised, and what is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from anyformer.core.errors import ConfigError
from anyformer.core.spec import DataSpec, ModelSpec, ObjectiveSpec
from anyformer.data.base import Row

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus, Tokenizers
    from anyformer.recipes.schema import Training

    Array = NDArray[np.float64]
    Arrays = Mapping[str, NDArray[Any]]
    Sums = Mapping[str, Array]  # name -> a sum over everything measured, or one of each resample
    Figure = Callable[[Sums], Array]
    Tensors = Mapping[str, Tensor]

T = TypeVar("T")
IGNORED = -100  # a target that has no loss; `anyformer.core.model` says so too, and imports torch


@dataclass(frozen=True)
class Batch:
    """tensors: name -> a tensor that begins with the rows. tokens: in it, padding left out. count: of what is lost."""

    tensors: Tensors
    tokens: int
    count: int

    @classmethod
    def of(cls, arrays: Arrays, tokens: int, count: int) -> Batch:
        """From arrays, as data are arranged."""
        return cls(tensors_of(arrays), tokens, count)


def tensors_of(arrays: Arrays) -> dict[str, Tensor]:
    """The same numbers as tensors."""
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def placed(tensors: Tensors, device: torch.device) -> dict[str, Tensor]:
    """The same tensors where a model is."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def token_marks(nats: Tensor, tensors: Tensors) -> dict[str, Tensor]:
    """The marks of an objective that asks for tokens: nats (B, T), and how many of the `targets` are asked for."""
    return {"nats": nats.double().sum(1), "tokens": (tensors["targets"] != IGNORED).sum(1)}


@dataclass(frozen=True)
class Coder:
    """What turns rows into numbers, and numbers into what people read."""

    tokenizers: Tokenizers
    classes: tuple[str, ...] = ()


class Feed(ABC):
    """The batches of a run, each a pure function of its number: a resumed run needs no other state."""

    @property
    @abstractmethod
    def tokens(self) -> float:
        """How many tokens a batch has, on average."""

    @abstractmethod
    def at(self, number: int) -> Batch:
        """The batch of a number, counted from 0."""

    @abstractmethod
    def origin(self, number: int) -> str:
        """Where a batch comes from, in words: what to look at when it does harm."""


@dataclass(frozen=True)
class Guide:
    """A model that the loss looks at beside the one that is trained, and that stays as it is: `model.guide`.

    path: where it is; None: the model itself, as it was when training began. measures: whether `marks` look at it too.
    """

    path: str | None
    measures: bool


class Objective(ObjectiveSpec, ABC, Generic[T]):
    """T: what a side of the corpus is. asks: the column that a plain text stands for, when it is to be answered."""

    asks: ClassVar[str] = "text"

    @property
    def guide(self) -> Guide | None:
        """What the loss looks at beside the model; None: nothing."""
        return None

    @abstractmethod
    def corpus(self, data: DataSpec, seed: int, model: ModelSpec, known: Tokenizers | None = None) -> Corpus[T]:
        """The data, encoded. model: may name the classes. known: tokenizers that exist."""

    @abstractmethod
    def completed(self, model: ModelSpec, corpus: Corpus[T]) -> ModelSpec:
        """The declaration with what only the data knows: vocabularies, names of classes. ConfigError: they differ."""

    @abstractmethod
    def check(self, model: Model) -> None:
        """Refuse a model that cannot be trained this way (ConfigError)."""

    @abstractmethod
    def feed(self, corpus: Corpus[T], model: Model, training: Training, seed: int) -> Feed:
        """The training side in batches."""

    @abstractmethod
    def exam(self, corpus: Corpus[T], model: Model, training: Training, most: int | None) -> Iterator[Batch]:
        """The held-out side in batches, in order; the first `most` of them, or all."""

    @abstractmethod
    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        """The sum of a batch's losses, of which the step minimises the mean over its `count`."""

    @abstractmethod
    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        """name -> (units,): what is added up over the held-out side, a unit being what may be resampled."""

    @abstractmethod
    def figures(self, corpus: Corpus[T]) -> dict[str, Figure]:
        """Metric -> how it follows from the sums of the marks; `loss` is one of them."""

    def written(self, model: Model, tensors: Tensors, coder: Coder) -> dict[str, Tensor]:
        """Marks that take the model's own text, which costs much more: made once, at the end."""
        return {}

    def written_figures(self) -> dict[str, Figure]:
        """Metric -> how it follows from what `written` gives."""
        return {}

    def classes_of(self, model: ModelSpec) -> tuple[str, ...]:
        """The classes that a finished declaration names; () where there are none."""
        return ()

    def predicted(self, model: Model, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        """What the model says of each row, whose columns are those of the data without the answer.

        InputError: a row cannot be read.
        """
        raise ConfigError(f"a model of {type(self).__name__} predicts no more than text: take `generate`")
