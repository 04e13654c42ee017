"""The feed-forward network (Vaswani et al. 2017, equation 2): y = W_down a(W_up x)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Context
from anyformer.core.layer import Stateless
from anyformer.core.linear import Linear
from anyformer.core.spec import Fraction, LayerSpec, Site, Size, spec
from anyformer.core.state import Past
from anyformer.feedforward.activations import FUNCTIONS, Activation


@spec
class MLP(LayerSpec):
    """Two linear maps with a nonlinearity between (Vaswani et al. 2017).

    hidden: the width in between; None: four times the stream's. dropout: after the nonlinearity.
    """

    hidden: Size | None = None
    activation: Activation = "gelu"
    bias: bool = True
    dropout: Fraction = 0.0

    def build(self, at: Site) -> MLPLayer:
        return MLPLayer(self, at)


class MLPLayer(Stateless):
    """up: (F, C), down: (C, F)."""

    def __init__(self, spec: MLP, at: Site) -> None:
        super().__init__(at)
        sizes = {"C": at.width, "F": spec.hidden or 4 * at.width}
        self.activation, self.dropout = FUNCTIONS[spec.activation], spec.dropout
        self.up = Linear(at.at("up"), "F", "C", sizes, spec.bias)
        self.down = Linear(at.at("down"), "C", "F", sizes, spec.bias, joins=True)

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        hidden = ctx.point(self.path, "hidden", self.activation(self.up(x)))
        return self.down(F.dropout(hidden, self.dropout, self.training)), state
