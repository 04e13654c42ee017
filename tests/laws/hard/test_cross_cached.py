"""Cross attention (Vaswani et al. 2017): a source is projected once: when the state is made, or as it comes."""

import torch
from harness import CLOSE, VOCABULARY, WIDTH, assert_lawful, cuttings, redraw, tokens
from torch import Tensor
from torch.testing import assert_close

from anyformer.architectures.encoder_decoder import EncoderDecoder
from anyformer.attention.cross import Cross
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Source
from anyformer.core.model import Model
from anyformer.core.tree import tree_map
from anyformer.patterns.base import Pattern, parse
from anyformer.positions.rotary import Rotary

FULL = parse("full")
READ = tokens(3, 11, seed=1)
LENGTHS = torch.tensor([11, 4, 7])


def translator(pattern: Pattern = FULL) -> Model:
    encode = Block(mixer=Softmax(heads=4, position=Rotary(), pattern=FULL))
    decode = Block(mixer=Softmax(heads=4, position=Rotary()), cross=Cross(heads=4, kv_heads=2, pattern=pattern))
    body = {"encoder": Stack(blocks=(encode,)), "decoder": Stack(blocks=(decode,) * 2)}
    return redraw(EncoderDecoder(width=WIDTH, vocabulary=VOCABULARY, **body).build(dtype=torch.float64))


def test_keys_are_made_once_and_cached_is_uncached() -> None:
    model, calls = translator(), []
    sources = {"source": model.encode(READ, LENGTHS)}
    assert_lawful(model, tokens(), sources=sources)
    model.decoder.all[1].cross.k.register_forward_hook(lambda *_: calls.append(1))
    state = model.init_state(3, sources=sources)
    for ids in tokens().split(1, 1):
        _, state = model(ids, state)
    assert calls == [1]


@torch.no_grad()
def test_a_source_may_come_call_by_call() -> None:
    """Both clocks are one here: a token sees of the source what had come by then."""
    model, ids, last = translator(parse("causal")), tokens(3, 20), None
    source = Source(torch.randn(3, 20, WIDTH, dtype=torch.float64), model.encode(tokens(3, 20)).where)
    whole = model(ids, sources={"source": source})
    for cuts in cuttings(20):
        state, outs, at = model.init_state(3), [], 0
        for n in cuts:
            piece = tree_map(lambda x, a=at, b=at + n: x[:, a:b], source)
            out, state = model(ids[:, at : at + n], state, sources={"source": piece})
            outs.append(out)
            at += n
        assert_close(torch.cat(outs, 1), whole, **CLOSE)
        last = state
    assert last is not None and last.past.body[0].cross.values[0].shape[1] == 20


@torch.no_grad()
def test_rows_keep_their_source_when_selected_and_forked() -> None:
    model, ids, rows = translator(), tokens(), [2, 0, 2]
    sources = {"source": model.encode(READ, LENGTHS)}
    whole = model(ids, sources=sources)
    for room in ({}, {"capacity": 23}):
        _, state = model(ids[:, :9], model.init_state(3, sources=sources, **room))
        fork = state.fork()

        def rest(state, rows: list[int]) -> Tensor:
            return model(ids[rows, 9:], state)[0]

        assert_close(rest(state.select(rows), rows), whole[rows, 9:], **CLOSE)
        begun, fork = model(ids[:, 9:13], fork)
        model((ids[:, 9:] + 1) % VOCABULARY, state)  # in between
        assert_close(torch.cat([begun, model(ids[:, 13:], fork)[0]], 1), whole[:, 9:], **CLOSE)
