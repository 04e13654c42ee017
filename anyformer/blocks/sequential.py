"""The usual block: a mixer, perhaps a reader of a source, usually a feed-forward, each joining the stream in turn."""

from __future__ import annotations

from torch import Tensor

from anyformer.blocks.base import Hear, PartsBlock
from anyformer.core.roles import FeedForward, Mixer, Residual
from anyformer.core.spec import LayerSpec, Site, spec
from anyformer.feedforward.mlp import MLP
from anyformer.residuals.pre import Pre


@spec
class Block(LayerSpec):
    """A mixer and a feed-forward, one after the other (Vaswani et al. 2017).

    cross: a second mixer between the two, as decoders have that read an encoder. ff: None: no feed-forward (Mamba).
    """

    mixer: Mixer
    cross: Mixer | None = None
    ff: FeedForward | None = MLP()
    residual: Residual = Pre()

    def build(self, at: Site) -> SequentialBlock:
        return SequentialBlock(self, at)


class SequentialBlock(PartsBlock):
    """x joins mixer(x), then cross(x), then ff(x)."""

    def __init__(self, spec: Block, at: Site) -> None:
        places = {"mixer": spec.mixer, "cross": spec.cross, "ff": spec.ff}
        parts = {name: part for name, part in places.items() if part is not None}
        super().__init__(at, parts, spec.residual, joins=tuple(parts))

    def join(self, x: Tensor, hear: Hear) -> Tensor:
        for name in self.parts:
            x = self.residual.leave(name, x, hear(name, self.residual.enter(name, x)))
        return x
