"""Speculative decoding (Leviathan et al. 2023) on a ring: draft a few tokens, keep a prefix, forget the others."""

import pytest
import torch
from harness import VOCABULARY, build, redraw, tokens
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.model import Model
from anyformer.patterns.base import parse
from anyformer.positions.alibi import ALiBi
from anyformer.positions.rotary import Rotary

B, T, SLACK = 3, 200, 5


def windows() -> Model:
    sinks = Softmax(heads=4, pattern=parse("causal & (sinks(2) | window(6))"), position=Rotary())
    near = Softmax(heads=4, pattern=parse("causal & window(9)"), position=ALiBi())
    return redraw(build(Stack(blocks=(Block(mixer=sinks), Block(mixer=near)))))


@pytest.mark.parametrize("inplace", [True, False])
@torch.no_grad()
def test_the_rejected_were_never_read(inplace: bool) -> None:
    model, ids, draw = windows(), tokens(B, T), torch.Generator().manual_seed(1)
    whole = model(ids)
    state = model.init_state(B, capacity=T + 9, slack=SLACK, inplace=inplace)
    assert state.past.body[0].mixer.where.time.shape[1] == 2 + 6 + SLACK + 1  # a ring and its junk slot
    at, steps = torch.zeros(B, dtype=torch.long), 0
    while bool((at < T).any()):
        drafted = (1, 3, 5, 9)[steps % 4]  # 9 do not fit beside what they see: the ring is read first, then written
        place = at[:, None] + torch.arange(drafted)
        real, right = place < T, ids.gather(1, place.clamp(max=T - 1))  # rows end at different steps
        keep = torch.randint(max(0, drafted - SLACK), drafted + 1, (B,), generator=draw)
        accepted = torch.arange(drafted) < keep[:, None]
        out, state = model(torch.where(accepted, right, (right + 3) % VOCABULARY), state, real=real)
        state = model.trim(state, keep)
        for row, taken in enumerate(accepted & real):
            assert_close(out[row, taken], whole[row, place[row, taken]], rtol=0, atol=1e-9)
        at, steps = (at + keep).clamp(max=T), steps + 1
        assert torch.equal(state.past.clock, at)
    assert steps > 50


@torch.no_grad()
def test_the_slack_is_a_total() -> None:
    model, ids = windows(), tokens(B, 30)
    state = model.init_state(B, capacity=30, slack=SLACK)
    _, state = model(ids[:, :20], state)
    state = model.rewind(state, torch.full((B,), 17))
    with pytest.raises(ValueError, match="6 tokens to forget, but the slack is 5"):
        model.rewind(state, torch.tensor([17, 14, 17]))
    _, state = model(ids[:, 17:18], state)  # read again, but the ring has seen time 19: no room comes back
    with pytest.raises(ValueError, match="6 tokens to forget"):
        model.rewind(state, torch.full((B,), 14))
    out, _ = model(ids[:, 15:], model.rewind(state, torch.full((B,), 15)))
    assert_close(out, model(ids)[:, 15:], rtol=0, atol=1e-9)
