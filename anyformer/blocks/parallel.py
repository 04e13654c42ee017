"""The parallel block (GPT-J, Wang & Komatsuzaki 2021; PaLM, Chowdhery et al. 2022): x + f(norm(x)) + g(norm(x))."""

from __future__ import annotations

from torch import Tensor

from anyformer.blocks.base import Hear, PartsBlock
from anyformer.core.roles import FeedForward, Mixer, Residual
from anyformer.core.spec import LayerSpec, Site, from_dict, spec
from anyformer.feedforward.mlp import MLP
from anyformer.residuals.pre import Pre

BOTH = "both"  # what a residual calls the two parts that it serves as one


@spec
class Parallel(LayerSpec):
    """A mixer and a feed-forward side by side (GPT-J; PaLM).

    shared: both read through one norm, and what they say joins the stream as one sum (GPT-J, PaLM); else each has a
    norm of its own, both read the same stream, and join it in turn (GPT-NeoX).
    """

    mixer: Mixer
    ff: FeedForward = MLP()
    residual: Residual = Pre()
    shared: bool = True

    @classmethod
    def examples(cls) -> tuple[Parallel, ...]:
        mixer = {"kind": "softmax", "heads": 4, "kv_heads": 2, "position": "rotary"}
        ff = {"kind": "gated", "hidden": 20}
        return tuple(from_dict(cls, {"mixer": mixer, "ff": ff, "shared": shared}) for shared in (True, False))

    def build(self, at: Site) -> ParallelBlock:
        return ParallelBlock(self, at)


class ParallelBlock(PartsBlock):
    """x joins mixer(x) + ff(x)."""

    def __init__(self, spec: Parallel, at: Site) -> None:
        joins = (BOTH,) if spec.shared else ("mixer", "ff")
        super().__init__(at, {"mixer": spec.mixer, "ff": spec.ff}, spec.residual, joins)
        self.shared = spec.shared

    def join(self, x: Tensor, hear: Hear) -> Tensor:
        if self.shared:
            read = self.residual.enter(BOTH, x)
            return self.residual.leave(BOTH, x, hear("mixer", read) + hear("ff", read))
        said = {name: hear(name, self.residual.enter(name, x)) for name in self.parts}
        for name, y in said.items():
            x = self.residual.leave(name, x, y)
        return x
