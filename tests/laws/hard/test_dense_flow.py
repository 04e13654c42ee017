"""DenseFormer (Pagliardini et al. 2024): every block reads a weighted sum of all streams so far.

X_i = B_i(Y_(i-1)), Y_i = sum_(j<=i) a_ij X_j, X_0 = Y_0 = embeddings; a_ii = 1 and the others 0 at first.
"""

import torch
from harness import assert_lawful, build, gradients, redraw, tokens
from torch import Generator, Tensor
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import BlockStack, Stack
from anyformer.core.context import Context
from anyformer.core.spec import FlowSpec, Site, spec
from anyformer.flows.base import Block as Run
from anyformer.flows.base import Flow
from anyformer.positions.rotary import Rotary

History = tuple[Tensor, ...]  # X_0 … X_i and, last, Y_i
BLOCKS = (Block(mixer=Softmax(heads=4, position=Rotary())),) * 3


@spec
class Dense(FlowSpec):
    def build(self, at: Site) -> "DenseFlow":
        return DenseFlow(at)


def last_is_one(weight: Tensor, _: Generator) -> None:
    weight.zero_()[-1] = 1


class DenseFlow(Flow):
    def __init__(self, at: Site) -> None:
        super().__init__(at)
        for i in range(1, at.depth[1] + 1):
            self.param(f"a{i}", ("L",), {"L": i + 1}, last_is_one)

    def open(self, x: Tensor) -> History:
        return x, x

    def around(self, index: int, block: Run, history: History) -> History:
        xs = (*history[:-1], block(history[-1]))
        return *xs, torch.einsum("l,lbtc->btc", getattr(self, f"a{index + 1}"), torch.stack(xs))

    def close(self, history: History) -> Tensor:
        return history[-1]


def test_starts_as_the_plain_flow_bit_for_bit() -> None:
    plain, dense = redraw(build(Stack(blocks=BLOCKS))), build(Stack(blocks=BLOCKS, flow=Dense()))
    new = dense.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert new == [f"body.flow.a{i}" for i in (1, 2, 3)]
    assert torch.equal(dense(tokens()), plain(tokens()))
    assert sum(p.numel() for p in dense.body.flow.parameters()) == 3 * (3 + 3) // 2


def test_is_the_formula_and_lawful() -> None:
    model, ids = redraw(build(Stack(blocks=BLOCKS, flow=Dense()))), tokens()
    body: BlockStack = model.body
    x = y = model.enter(ids, Context.start(*ids.shape).where)
    xs = [x]
    for i, block in enumerate(body.all):
        xs.append(block(y, Context.start(*ids.shape))[0])
        y = sum(a * x for a, x in zip(getattr(body.flow, f"a{i + 1}"), xs, strict=True))
    assert_close(model(ids), model.head(body.norm(y), Context.start(*ids.shape).where), rtol=0, atol=1e-10)
    assert_lawful(model, ids)
    plain, again = (gradients(model, lambda c=c: model(ids, checkpoint=c)) for c in (False, True))
    assert_close(again, plain)
