"""The clamped gated unit (GPT-OSS, OpenAI 2025): one large number does not drown the others.

y = W_down ((u + 1) g sigmoid(a g)) + b,  g = min(W_gate x + b, c),  u = W_up x + b within [-c, c]
"""

from __future__ import annotations

from math import ceil

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Context
from anyformer.core.layer import Stateless
from anyformer.core.linear import Linear
from anyformer.core.spec import LayerSpec, Positive, Site, Size, spec
from anyformer.core.state import Past


@spec
class Clamped(LayerSpec):
    """A gated unit whose numbers are kept within bounds (GPT-OSS, OpenAI 2025).

    hidden: None gives 8/3 of the width, as in `gated`. limit: the bound. slope: how steep the gate's sigmoid is.
    """

    hidden: Size | None = None
    limit: Positive = 7.0
    slope: Positive = 1.702
    bias: bool = True

    @classmethod
    def examples(cls) -> tuple[Clamped, ...]:
        return (cls(hidden=20, limit=1.5),)

    def build(self, at: Site) -> ClampedLayer:
        return ClampedLayer(self, at)


class ClampedLayer(Stateless):
    """gate, up: (F, C), down: (C, F)."""

    def __init__(self, spec: Clamped, at: Site) -> None:
        super().__init__(at)
        sizes = {"C": at.width, "F": spec.hidden or 8 * ceil(at.width / 3)}
        self.limit, self.slope = spec.limit, spec.slope
        self.gate = Linear(at.at("gate"), "F", "C", sizes, spec.bias)
        self.up = Linear(at.at("up"), "F", "C", sizes, spec.bias)
        self.down = Linear(at.at("down"), "C", "F", sizes, spec.bias, joins=True)

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        gate = self.gate(x).clamp(max=self.limit)
        up = self.up(x).clamp(-self.limit, self.limit)
        hidden = ctx.point(self.path, "hidden", (up + 1) * gate * F.sigmoid(self.slope * gate))
        return self.down(hidden), state
