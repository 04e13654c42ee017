"""A router looks at a token and says of every expert a logit, a score made of it, and how good a choice it is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from anyformer.core.context import Context
from anyformer.core.layer import Part
from anyformer.core.spec import Site, Spec


class RouterSpec(Spec, ABC):
    """Chooses and weighs a token's experts."""

    @abstractmethod
    def make(self, at: Site, count: int, top: int) -> Router:
        """The router of `count` experts, of which a token takes `top`."""


class Router(Part, ABC):
    """Every number belongs to one token alone, or the others in the same call would change what becomes of it."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> logits (B, T, E), in float32 at least."""

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """The logarithm of what the experts are weighed by, (B, T, E)."""

    @abstractmethod
    def ranks(self, scores: Tensor) -> Tensor:
        """What the experts are chosen by, the largest first, (B, T, E)."""

    @abstractmethod
    def lose(self, counts: Tensor, ctx: Context) -> None:
        """A loss of its own, from how many tokens every expert (E,) was given."""
