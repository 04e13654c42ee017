"""What a layer is told beside its input: where each token is, what else can be read, and the tape."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from anyformer.core.tape import Tape
from anyformer.core.tree import tree, tree_map

BEYOND = 2**60  # later than every time


@tree
class Where:
    """Where each token is.

    time: (B, T), the model's one clock: unique and rising along a row, -1 for padding. Causality, stores and memories
    read nothing else.
    coords: (B, T, R), what position schemes read: restarting in packed documents, two-dimensional for images.
    labels: name -> (B, T), what patterns may compare. `start` is the time at which the token's text began.
    """

    time: Tensor
    coords: Tensor
    labels: dict[str, Tensor]

    @staticmethod
    def start(batch: int, length: int, at: int = 0, device: torch.device | str | None = None) -> Where:
        """The tokens `at` … `at + length - 1` of `batch` rows, one coordinate, no labels."""
        time = torch.arange(at, at + length, device=device).expand(batch, length)
        return Where(time, time[..., None], {})

    @staticmethod
    def empty(like: Where, length: int) -> Where:
        """`length` tokens that are nowhere, with the coordinates and labels that `like` has."""
        return tree_map(lambda x: x.new_full((x.shape[0], length, *x.shape[2:]), -1), like)

    @property
    def real(self) -> Tensor:
        """(B, T): whether there is a token."""
        return self.time >= 0

    @property
    def offset(self) -> Tensor:
        """(B, T): the time since the start of the token's own text."""
        return self.time - self.labels["start"] if "start" in self.labels else self.time

    @property
    def none(self) -> Where:
        """No token at all, (B, 0), with the same coordinates and labels."""
        return tree_map(lambda x: x[:, :0], self)

    @property
    def queries(self) -> Where:
        """Broadcasts over keys: time (B, T, 1)."""
        return tree_map(lambda x: x[:, :, None], self)

    @property
    def keys(self) -> Where:
        """Broadcasts over queries: time (B, 1, T)."""
        return tree_map(lambda x: x[:, None], self)

    def join(self, later: Where) -> Where:
        """These tokens, then `later` ones."""
        return tree_map(lambda a, b: torch.cat([a, b], 1), self, later)


@tree
class Source:
    """Vectors (B, S, C) from elsewhere that cross attention may read, and where each of them is."""

    vectors: Tensor
    where: Where


@dataclass(frozen=True)
class Context:
    """Handed down unchanged unless a layer has a reason.

    straight: known on the host: every row holds the times 0 … T-1, no padding, no past. Fast forms may rely on it.
    call: which of several passes through the same layer this is (a segment, a loop, a shared block).
    """

    where: Where
    sources: dict[str, Source] = field(default_factory=dict)
    tape: Tape | None = None
    checkpoint: bool = False
    straight: bool = False
    call: tuple[int, ...] = ()

    @staticmethod
    def start(batch: int, length: int, at: int = 0, device: torch.device | str | None = None) -> Context:
        """Plain rows without padding; `at`: the time of the first token."""
        return Context(Where.start(batch, length, at, device))

    def moved(self, where: Where) -> Context:
        """The same for tokens that are somewhere else."""
        return replace(self, where=where, straight=False)

    def passing(self, call: int) -> Context:
        """The same in the `call`-th pass through the layers below."""
        return replace(self, call=(*self.call, call))

    def point(self, path: str, name: str, value: Tensor) -> Tensor:
        """A named value: `value` itself, or what the tape puts in its place. Free without a tape."""
        return value if self.tape is None else self.tape.point(f"{path}.{name}".lstrip("."), self.call, value)

    def lose(self, path: str, name: str, value: Tensor) -> None:
        """A loss beside the main one; kept only where there is a tape."""
        if self.tape is not None:
            self.tape.losses[f"{path}.{name}".lstrip("."), self.call] = value
