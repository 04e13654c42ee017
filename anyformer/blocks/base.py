"""What blocks share: named parts, each with a past of its own, and the residual that joins them to the stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from torch import Tensor

from anyformer.core.context import Context
from anyformer.core.layer import Layer
from anyformer.core.spec import LayerSpec, Ref, ResidualSpec, Site
from anyformer.core.state import Past, Room
from anyformer.core.tree import tree
from anyformer.residuals.base import Residual

Hear = Callable[[str, Tensor], Tensor]  # what the part of that name says of x


@tree
class BlockPast:
    """The pasts of the parts; () for a part that is not there."""

    mixer: Past
    ff: Past = ()
    cross: Past = ()


class PartsBlock(Layer, ABC):
    """A block that says how its parts join the stream; their pasts come with it."""

    residual: Residual

    def __init__(
        self, at: Site, parts: Mapping[str, LayerSpec | Ref], residual: ResidualSpec | Ref, joins: tuple[str, ...]
    ) -> None:
        """joins: the names by which the residual serves them."""
        super().__init__(at)
        self.hold(at, "residual", residual, joins=joins)
        for name, part in parts.items():
            self.hold(at, name, part, gain=self.residual.gain)
        self.parts = tuple(parts)

    @abstractmethod
    def join(self, x: Tensor, hear: Hear) -> Tensor:
        """The stream (B, T, C) after every part was heard once."""

    def part(self, name: str) -> Layer:
        """The layer of that name; a part that is shared is held unregistered."""
        return getattr(self, name)

    def init_state(self, room: Room) -> BlockPast:
        return BlockPast(**{name: self.part(name).init_state(room) for name in self.parts})

    def rewind(self, past: BlockPast, until: Tensor) -> BlockPast:
        return BlockPast(**{name: self.part(name).rewind(getattr(past, name), until) for name in self.parts})

    def forward(self, x: Tensor, ctx: Context, state: BlockPast | None = None) -> tuple[Tensor, Past]:
        pasts: dict[str, Past] = {}

        def hear(name: str, x: Tensor) -> Tensor:
            y, pasts[name] = self.part(name)(x, ctx, None if state is None else getattr(state, name))
            return ctx.point(self.path, name, y)

        x = self.join(x, hear)
        return x, None if state is None else BlockPast(**pasts)
