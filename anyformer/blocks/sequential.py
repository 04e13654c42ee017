"""The usual block: a mixer, then perhaps a reader of a source, then a feed-forward, each joining the stream in turn."""

from __future__ import annotations

from torch import Tensor

from anyformer.core.context import Context
from anyformer.core.layer import Layer
from anyformer.core.roles import FeedForward, Mixer, Residual
from anyformer.core.spec import LayerSpec, Site, spec
from anyformer.core.state import Past, Room
from anyformer.core.tree import tree
from anyformer.feedforward.mlp import MLP
from anyformer.residuals.base import Residual as Joint
from anyformer.residuals.pre import Pre


@spec
class Block(LayerSpec):
    """A mixer and a feed-forward, one after the other (Vaswani et al. 2017).

    cross: a second mixer between the two, as decoders have that read an encoder.
    """

    mixer: Mixer
    cross: Mixer | None = None
    ff: FeedForward = MLP()
    residual: Residual = Pre()

    def build(self, at: Site) -> SequentialBlock:
        return SequentialBlock(self, at)


@tree
class BlockPast:
    """The pasts of the parts; () for a part that is not there."""

    mixer: Past
    cross: Past
    ff: Past


class SequentialBlock(Layer):
    """x joins mixer(x), then cross(x), then ff(x)."""

    mixer: Layer
    ff: Layer
    residual: Joint

    def __init__(self, spec: Block, at: Site) -> None:
        super().__init__(at)
        self.parts = tuple(name for name in ("mixer", "cross", "ff") if getattr(spec, name) is not None)
        for name in self.parts:
            self.hold(at, name, getattr(spec, name))
        self.hold(at, "residual", spec.residual, joins=self.parts)

    def part(self, name: str) -> Layer:
        """The layer of that name; a part that is shared is held unregistered."""
        return getattr(self, name)

    def init_state(self, room: Room) -> BlockPast:
        pasts = {name: self.part(name).init_state(room) for name in self.parts}
        return BlockPast(pasts["mixer"], pasts.get("cross", ()), pasts["ff"])

    def rewind(self, past: BlockPast, until: Tensor) -> BlockPast:
        pasts = {name: self.part(name).rewind(getattr(past, name), until) for name in self.parts}
        return BlockPast(pasts["mixer"], pasts.get("cross", ()), pasts["ff"])

    def forward(self, x: Tensor, ctx: Context, state: BlockPast | None = None) -> tuple[Tensor, Past]:
        pasts: dict[str, Past] = {}
        for name in self.parts:
            past = None if state is None else getattr(state, name)
            y, pasts[name] = self.part(name)(self.residual.enter(name, x), ctx, past)
            x = self.residual.leave(name, x, ctx.point(self.path, name, y))
        if state is None:
            return x, None
        return x, BlockPast(pasts["mixer"], pasts.get("cross", ()), pasts["ff"])
