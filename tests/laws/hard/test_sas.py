"""Simplified attention (He & Hofmann 2024): A = alpha I + beta softmax(q k) - gamma C, C the mean of what is seen.

No value projection: heads slice the channels. The mean is attention whose scores are all equal, so it reads the same
store under the same pattern, and what a window forgets leaves both terms at once.
"""

import torch
from harness import assert_lawful, build, redraw, tokens
from torch import Tensor
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Context
from anyformer.core.fills import normal, ones, zeros
from anyformer.core.layer import Layer
from anyformer.core.linear import Linear
from anyformer.core.spec import LayerSpec, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.kernels.attention import Region, attend
from anyformer.patterns.base import AnyPattern, parse
from anyformer.stores.base import Store
from anyformer.stores.room import make_store


@spec
class Shaped(LayerSpec):
    heads: Size
    pattern: AnyPattern = parse("causal & window(5)")

    def build(self, at: Site) -> "ShapedAttention":
        return ShapedAttention(self, at)


class ShapedAttention(Layer):
    def __init__(self, spec: Shaped, at: Site) -> None:
        super().__init__(at)
        self.heads, self.pattern, sizes = spec.heads, spec.pattern, {"H": spec.heads, "C": at.width}
        self.q = Linear(at.at("q"), "C", "C", sizes, fill=zeros)  # A = I at first
        self.k = Linear(at.at("k"), "C", "C", sizes, fill=normal(0.02))
        for name in ("alpha", "beta", "gamma"):
            self.param(name, ("H",), sizes, ones)

    def init_state(self, room: Room) -> Past:
        size = self.q.weight.shape[0] // self.heads
        return make_store(room, [(self.heads, size)] * 2, self.pattern.reach(room.restarts))

    def rewind(self, past: Store, until: Tensor) -> Store:
        return past.rewind(until)

    def forward(self, x: Tensor, ctx: Context, state: Store | None = None) -> tuple[Tensor, Past]:
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (self.q(x), self.k(x), x))
        keys, values, seen = k, v, ctx.where
        if state is not None:
            (keys, values), seen, state = state.append((k, v), seen, self.pattern.reach("start" in seen.labels))
        focus, mean = (
            attend([Region(p, keys, values, ctx.where, seen, self.pattern, q.shape[-1] ** -0.5)]) for p in (q, q * 0)
        )
        alpha, beta, gamma = (w[:, None] for w in (self.alpha, self.beta, self.gamma))
        return (alpha * v + beta * focus - gamma * mean).flatten(-2), state


def test_starts_as_the_identity() -> None:
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    mixer = build(Stack(blocks=(Block(mixer=Shaped(heads=4)),))).body.blocks.get_submodule("0.mixer")
    assert_close(mixer(x, Context.start(2, 9))[0], x)


def test_is_the_formula_under_a_window() -> None:
    x = torch.randn(2, 13, 24, dtype=torch.float64)
    mixer = redraw(build(Stack(blocks=(Block(mixer=Shaped(heads=4)),)))).body.blocks.get_submodule("0.mixer")
    q, k, out = mixer.q(x), mixer.k(x), torch.zeros_like(x)
    for row in range(2):
        for t in range(13):
            for head in range(4):
                near, at = slice(max(0, t - 4), t + 1), slice(6 * head, 6 * head + 6)
                weights, v = (k[row, near, at] @ q[row, t, at] / 6**0.5).softmax(0), x[row, near, at]
                alpha, beta, gamma = mixer.alpha[head], mixer.beta[head], mixer.gamma[head]
                out[row, t, at] = alpha * v[-1] + beta * weights @ v - gamma * v.mean(0)
    assert_close(mixer(x, Context.start(2, 13))[0], out, rtol=0, atol=1e-10)


def test_is_lawful_and_bounded() -> None:
    model = redraw(build(Stack(blocks=(Block(mixer=Shaped(heads=4)), Block(mixer=Softmax(heads=4))))))
    assert_lawful(model, tokens())
    model = redraw(build(Stack(blocks=(Block(mixer=Shaped(heads=4)),) * 2)))
    first = model.init_state(3)
    assert model(tokens(), first)[1].nbytes == first.nbytes
