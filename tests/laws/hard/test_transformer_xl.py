"""Transformer-XL (Dai et al. 2019): each layer also reads what it read in the last segment.

Gradients stop at every k-th border between segments. Both are counted from the start of the text, so that it does not
matter where a call begins.
"""

from dataclasses import replace

import pytest
import torch
from harness import WIDTH, assert_lawful, build, redraw, tokens
from torch import Tensor
from torch.testing import assert_close

from anyformer.attention.heads import Headed, hold_position
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Context, Where
from anyformer.core.roles import Position
from anyformer.core.spec import LayerSpec, Site, Size, positional_spec, spec
from anyformer.core.state import Past, Room
from anyformer.core.tape import Tape
from anyformer.core.tree import choose, tree_map
from anyformer.kernels.attention import Region, attend
from anyformer.memory.segments import align
from anyformer.patterns.base import Ahead, Pattern
from anyformer.positions.rotary import Rotary
from anyformer.stores.base import Store
from anyformer.stores.room import make_store

S = 5


@positional_spec
class Recent(Pattern):
    """Earlier tokens of the query's own segment and of the one before it."""

    size: int

    def sees(self, q: Where, k: Where) -> Tensor:
        return (k.time <= q.time) & (q.offset // self.size - k.offset // self.size <= 1)

    def reach(self, restarts: bool = False) -> tuple[float, float]:
        return 0, 2 * self.size

    def ahead(self, whole: frozenset[str] = frozenset()) -> Ahead:
        return Ahead.NONE


@spec
class XL(LayerSpec):
    heads: Size
    segment: Size
    gradient: Size  # segments between two borders that stop gradients
    position: Position = Rotary()

    def build(self, at: Site) -> "SegmentMemory":
        return SegmentMemory(self, at)


class SegmentMemory(Headed):
    def __init__(self, spec: XL, at: Site) -> None:
        super().__init__(at, spec.heads, None, None, bias=False)
        self.pattern, self.gradient = Recent(spec.segment), spec.gradient
        hold_position(self, at, spec.position)

    def init_state(self, room: Room) -> Past:
        return make_store(room, [(self.q.weight.shape[1],)], self.pattern.reach(room.restarts))

    def rewind(self, past: Store, until: Tensor) -> Store:
        return past.rewind(until)

    def forward(self, x: Tensor, ctx: Context, state: Store | None = None) -> tuple[Tensor, Past]:
        fresh = Room(ctx.where.none, {}, None, 0, False, x.dtype)
        past, outs = self.init_state(fresh) if state is None else state, []
        pieces, back = align(x, ctx.where, self.pattern.size)
        for piece in pieces:
            stops = piece.begins & (piece.index % self.gradient == 0)
            past = replace(past, values=choose(stops, tree_map(torch.detach, past.values), past.values))
            (hidden,), seen, past = past.append((piece.x,), piece.where, self.pattern.reach())
            q = self.position(self.cut(self.q(piece.x), self.heads), piece.where)
            k, v = self.position(self.cut(self.k(hidden), self.heads), seen), self.cut(self.v(hidden), self.heads)
            region = Region(q, k, v, piece.where, seen, self.pattern, self.head_size**-0.5)
            outs.append(self.join(attend([region])))
        return back(outs), None if state is None else past


def stack(mixer: LayerSpec) -> Stack:
    return Stack(blocks=(Block(mixer=mixer),) * 3)


def test_is_attention_to_two_segments_and_lawful() -> None:
    ours = redraw(build(stack(XL(heads=4, segment=S, gradient=2))))
    plain = build(stack(Softmax(heads=4, position=Rotary(), pattern=Recent(S))))
    plain.load_state_dict(ours.state_dict())
    assert_close(ours(tokens()), plain(tokens()), rtol=0, atol=1e-9)
    assert_lawful(ours, tokens(length=17))


@pytest.mark.parametrize(
    ("gradient", "loss_in", "reached"), [(1, 3, {3}), (2, 3, {2, 3}), (2, 2, {2}), (9, 3, {0, 1, 2, 3})]
)
def test_a_gradient_reaches_back_to_the_last_stop(gradient: int, loss_in: int, reached: set[int]) -> None:
    model, ids = redraw(build(stack(XL(heads=4, segment=S, gradient=gradient)))), tokens(2, 4 * S)
    for cuts in ((4 * S,), (3, 9, 8)):
        x = model.embedding(ids).detach().requires_grad_()
        state, outs, pieces = model.init_state(2), [], zip(ids.split(cuts, 1), x.split(cuts, 1), strict=True)
        for some, vectors in pieces:
            out, state = model(some, state, tape=Tape(change={"embedding": lambda _, vectors=vectors: vectors}))
            outs.append(out)
        torch.cat(outs, 1)[:, S * loss_in : S * (loss_in + 1)].square().mean().backward()
        assert x.grad is not None
        size = x.grad.view(2, 4, S, WIDTH).abs().amax((0, 2, 3))
        assert {i for i in range(4) if size[i] != 0} == reached
