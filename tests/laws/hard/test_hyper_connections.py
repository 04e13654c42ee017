"""Hyper-connections, the static form (Zhu et al. 2024): n streams side by side, mixed by learned weights at each layer.

x = sum_i a_i h_i;  y = f(norm(x));  h'_j = b_j y + sum_i R_ij h_i.  At first a = e_(layer mod n), b = 1, R = 1: the
streams are equal, each the plain pre-norm stream. The paper sums them at the end; the mean differs by n, which the last
norm undoes.
"""

from itertools import product

import torch
from harness import assert_lawful, build, redraw, tokens
from torch import Tensor, nn
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Context
from anyformer.core.fills import constant
from anyformer.core.layer import Part
from anyformer.core.model import Model
from anyformer.core.spec import FlowSpec, Site, Size, spec
from anyformer.feedforward.mlp import MLP
from anyformer.flows.base import Block as Run
from anyformer.flows.base import Flow
from anyformer.norms.layer import LayerNorm
from anyformer.positions.rotary import Rotary

PARTS = (Softmax(heads=4, position=Rotary()), MLP(hidden=13)) * 2  # the layers themselves: the flow is their residual


@spec
class Hyper(FlowSpec):
    streams: Size

    def build(self, at: Site) -> "HyperFlow":
        return HyperFlow(self, at)


class HyperFlow(Flow):
    """Of layer i: a (n,), b (n,), R (n, n) and its norm."""

    layers: nn.ModuleList

    def __init__(self, spec: Hyper, at: Site) -> None:
        super().__init__(at)
        self.streams, self.layers = spec.streams, nn.ModuleList()
        for index in range(at.depth[1]):
            layer, sizes = Part(at.at(f"layers.{index}")), {"N": spec.streams}
            layer.param("a", ("N",), sizes, lambda x, _, first=index % spec.streams: x.zero_()[first].fill_(1))
            layer.param("b", ("N",), sizes, constant(1.0))
            layer.param("R", ("N", "N"), sizes, lambda x, _: x.copy_(torch.eye(len(x))))
            layer.hold(at.at(f"layers.{index}"), "norm", LayerNorm())
            self.layers.append(layer)

    def open(self, x: Tensor) -> Tensor:
        return x.expand(self.streams, *x.shape)  # (N, B, T, C)

    def around(self, index: int, block: Run, history: Tensor) -> Tensor:
        layer = self.layers[index]
        y = block(layer.norm(torch.einsum("n,nbtc->btc", layer.a, history)))
        return torch.einsum("n,btc->nbtc", layer.b, y) + torch.einsum("nm,nbtc->mbtc", layer.R, history)

    def close(self, history: Tensor) -> Tensor:
        return history.mean(0)


def model(streams: int = 3) -> Model:
    return build(Stack(blocks=PARTS, flow=Hyper(streams=streams)))


def test_lawful() -> None:
    assert_lawful(redraw(model()), tokens())


@torch.no_grad()
def test_starts_as_the_plain_pre_norm_model() -> None:
    blocks = tuple(Block(mixer=mixer, ff=ff) for mixer, ff in (PARTS[:2], PARTS[2:]))
    plain, hyper = redraw(build(Stack(blocks=blocks))), model()
    names = {"residual.norm.mixer": (0, "flow.layers.{}.norm"), "residual.norm.ff": (1, "flow.layers.{}.norm")}
    names |= {"mixer": (0, "blocks.{}"), "ff": (1, "blocks.{}")}
    weights, moved = plain.state_dict(), {}
    for index, (old, (part, new)) in product((0, 1), names.items()):
        for name in [name for name in weights if name.startswith(f"body.blocks.{index}.{old}.")]:
            rest = name.removeprefix(f"body.blocks.{index}.{old}")
            moved[f"body.{new.format(2 * index + part)}{rest}"] = weights.pop(name)
    left = hyper.load_state_dict(weights | moved, strict=False)
    assert not left.unexpected_keys
    assert {name.split(".")[-1] for name in left.missing_keys} == {"a", "b", "R"}
    assert_close(hyper(tokens()), plain(tokens()), rtol=0, atol=1e-11)


@torch.no_grad()
def test_every_stream_is_the_plain_loop() -> None:
    body = redraw(model()).body
    x = torch.randn(2, 9, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    streams = [x] * 3
    for layer, part in zip(body.flow.layers, body.all, strict=True):
        read = sum(layer.a[i] * streams[i] for i in range(3))
        y, _ = part(layer.norm(read), Context.start(2, 9))
        streams = [layer.b[j] * y + sum(layer.R[i, j] * streams[i] for i in range(3)) for j in range(3)]
    assert_close(body(x, Context.start(2, 9))[0], body.norm(sum(streams) / 3), rtol=0, atol=1e-9)
