"""The usual block: a mixer, then perhaps a reader of a source, then a feed-forward, each joining the stream in turn."""

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

    cross: a second mixer between the two, as decoders have that read an encoder.
    """

    mixer: Mixer
    cross: Mixer | None = None
    ff: FeedForward = MLP()
    residual: Residual = Pre()

    def build(self, at: Site) -> SequentialBlock:
        return SequentialBlock(self, at)


class SequentialBlock(PartsBlock):
    """x joins mixer(x), then cross(x), then ff(x)."""

    def __init__(self, spec: Block, at: Site) -> None:
        cross = {} if spec.cross is None else {"cross": spec.cross}
        parts = {"mixer": spec.mixer, **cross, "ff": spec.ff}
        super().__init__(at, parts, spec.residual, joins=tuple(parts))

    def join(self, x: Tensor, hear: Hear) -> Tensor:
        for name in self.parts:
            x = self.residual.leave(name, x, hear(name, self.residual.enter(name, x)))
        return x
