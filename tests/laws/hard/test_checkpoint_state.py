"""Activation checkpointing (Chen et al. 2016) over several calls with a state: blocks are run again, states are not."""

from collections.abc import Callable

import pytest
import torch
from harness import build, redraw, tokens
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

from anyformer.attention.linear import Linear
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.model import Model
from anyformer.core.spec import LayerSpec
from anyformer.core.tree import tensors
from anyformer.memory.recurrent import RMT
from anyformer.patterns.base import parse
from anyformer.positions.rotary import Rotary

WINDOW = Softmax(heads=4, pattern=parse("causal & window(5)"), position=Rotary())
BLOCKS = Stack(blocks=tuple(Block(mixer=mixer) for mixer in (Softmax(heads=4), WINDOW, Linear(heads=4))))
BODIES = {"stack": BLOCKS, "rmt": RMT(inner=BLOCKS, segment=6, slots=2)}
CUTS = (9, 1, 13)


def several_calls(model: Model, ids: Tensor, checkpoint: bool) -> list[Tensor]:
    """The outputs, and every tensor of the state after the last call."""
    state, outs = model.init_state(ids.shape[0]), []
    for part in ids.split(CUTS, 1):
        out, state = model(part, state, checkpoint=checkpoint)
        outs.append(out)
    return [torch.cat(outs, 1), *tensors(state.past)]


def gradients(model: Model, values: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a loss that reads the outputs and the state, as the next call would."""
    loss = sum(value.square().mean() for value in values if value.requires_grad)
    return torch.autograd.grad(loss, list(model.parameters()))


def kept(run: Callable[[], object], model: Model) -> int:
    """Bytes that autograd keeps for the backward pass, weights left out, each memory once."""
    held = {weight.untyped_storage().data_ptr(): weight.untyped_storage() for weight in model.parameters()}
    weights = set(held)

    def pack(x: Tensor) -> Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage()  # held, so that no address is used twice
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        out = run()
    del out
    return sum(memory.nbytes() for address, memory in held.items() if address not in weights)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_outputs_state_and_gradients_are_those_of_the_plain_pass(body: LayerSpec) -> None:
    model, ids = redraw(build(body)), tokens()
    plain, again = (several_calls(model, ids, checkpoint) for checkpoint in (False, True))
    for ours, theirs in zip(again, plain, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(gradients(model, again), gradients(model, plain), strict=True):
        assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_activations_are_let_go(body: LayerSpec) -> None:
    model, ids = redraw(build(body)), tokens()
    plain, again = (kept(lambda c=checkpoint: several_calls(model, ids, c), model) for checkpoint in (False, True))
    streams = 3 * ids.numel() * 24 * 8 * 2  # what a block was given stays: its share of the stream (and of memory)
    assert again + streams < plain / 3
