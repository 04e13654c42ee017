"""Gated linear units (Shazeer 2020): y = W_down (a(W_gate x) * W_up x); with silu it is Llama's SwiGLU."""

from __future__ import annotations

from math import ceil

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Context
from anyformer.core.layer import Stateless
from anyformer.core.linear import Linear
from anyformer.core.spec import Fraction, LayerSpec, Site, Size, spec
from anyformer.core.state import Past
from anyformer.feedforward.activations import FUNCTIONS, Activation


@spec
class Gated(LayerSpec):
    """A gate beside the up projection: GLU, GEGLU, SwiGLU (Shazeer 2020).

    hidden: None gives 8/3 of the width, rounded up to a multiple of 8: as many weights as an MLP of four widths.
    dropout: of the gated product.
    """

    hidden: Size | None = None
    activation: Activation = "silu"
    bias: bool = False
    dropout: Fraction = 0.0

    def build(self, at: Site) -> GatedLayer:
        return GatedLayer(self, at)


class GatedLayer(Stateless):
    """gate, up: (F, C), down: (C, F)."""

    def __init__(self, spec: Gated, at: Site) -> None:
        super().__init__(at)
        sizes = {"C": at.width, "F": spec.hidden or 8 * ceil(at.width / 3)}
        self.activation, self.dropout = FUNCTIONS[spec.activation], spec.dropout
        self.gate = Linear(at.at("gate"), "F", "C", sizes, spec.bias)
        self.up = Linear(at.at("up"), "F", "C", sizes, spec.bias)
        self.down = Linear(at.at("down"), "C", "F", sizes, spec.bias, joins=True)

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        hidden = ctx.point(self.path, "hidden", self.activation(self.gate(x)) * self.up(x))
        return self.down(F.dropout(hidden, self.dropout, self.training)), state
