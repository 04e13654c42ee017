"""RMT on ragged rows: segment borders stand at other columns in every row; each row is what a plain loop makes."""

import pytest
import torch
from harness import assert_lawful, build, redraw, tokens
from torch import Tensor
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Context
from anyformer.core.model import Model
from anyformer.core.tape import Tape
from anyformer.memory.recurrent import RMT
from anyformer.positions.rotary import Rotary

S, M = 5, 2
SHORTER = torch.tensor([0, 4, 11])  # padding of each row


def rmt(gradient: int = 0) -> Model:
    blocks = (Block(mixer=Softmax(heads=4, position=Rotary())), Block(mixer=Softmax(heads=2)))
    return redraw(build(RMT(inner=Stack(blocks=blocks), segment=S, slots=M, gradient=gradient)))


def loop(model: Model, ids: Tensor) -> Tensor:
    """One unpadded text (1, T): [m ; x ; m] through the inner layer, segment by segment."""
    body, outs = model.body, []
    memory = body.memory[None]
    for x in model.embedding(ids).split(S, 1):
        y, _ = body.inner(torch.cat([memory, x, memory], 1), Context.start(1, x.shape[1] + 2 * M))
        outs.append(y[:, M:-M])
        memory = y[:, -M:]
    return model.head(torch.cat(outs, 1), Context.start(*ids.shape).where)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cuts", [(23,), (1,) * 23, (6, 1, 16), (5, 5, 5, 8)])
@torch.no_grad()
def test_every_row_is_the_plain_loop(side: str, cuts: tuple[int, ...]) -> None:
    model, ids = rmt(), tokens()
    shift = SHORTER[:, None] if side == "left" else 0
    real = (torch.arange(23) >= shift) & (torch.arange(23) < 23 - SHORTER[:, None] + shift)
    for capacity in (None, 23):
        state, outs = model.init_state(3, capacity=capacity), []
        for part, here in zip(ids.split(cuts, 1), real.split(cuts, 1), strict=True):
            out, state = model(part, state, real=here)
            outs.append(out)
        for row, mine in enumerate(real):
            assert_close(torch.cat(outs, 1)[row, mine], loop(model, ids[row : row + 1, mine])[0], rtol=0, atol=1e-9)


def test_a_gradient_reaches_back_as_many_segments_as_it_may() -> None:
    for gradient, reached in ((0, True), (1, False)):
        model, ids = rmt(gradient), tokens()
        state, tape = model.init_state(3), Tape(record=["embedding"])
        _, state = model(ids[:, :7], state, tape=tape)
        out, _ = model(ids[:, 7 : 3 * S], state)
        third = out[:, 2 * S - 7 :].square().sum()
        (grad,) = torch.autograd.grad(third, tape["embedding"], materialize_grads=True)
        first = grad[:, 0]  # by x_1
        assert bool((first != 0).any()) == reached


def test_lawful() -> None:
    assert_lawful(rmt(), tokens())
