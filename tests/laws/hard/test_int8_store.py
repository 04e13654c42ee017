"""An int8 store: 8 bits and one scale a token and head. What is attended to is what is stored, else the law fails."""

import torch
from harness import assert_lawful, build, cut, redraw, tokens
from torch import Tensor
from torch.testing import assert_close

from anyformer.attention.heads import Headed
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.core.context import Context, Where
from anyformer.core.model import Model
from anyformer.core.spec import LayerSpec, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.core.tree import tree
from anyformer.kernels.attention import Region, attend
from anyformer.patterns.base import AnyPattern, parse
from anyformer.patterns.causal import Causal
from anyformer.stores.base import Reach, Store, Values
from anyformer.stores.room import make_store


def quantised(x: Tensor) -> Values:
    """x (…, D) as int8 and its scale (…, 1): x = scale n, |n| <= 127."""
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-12)
    return (x / scale).round().to(torch.int8), scale


@tree
class Int8(Store):
    inner: Store  # holds (int8, scale) of each value

    def append(self, values: Values, where: Where, reach: Reach) -> tuple[Values, Where, Store]:
        new = tuple(half for value in values for half in quantised(value))
        seen, seen_where, inner = self.inner.append(new, where, reach)
        pairs = zip(seen[::2], seen[1::2], values, strict=True)
        return tuple(n.to(v.dtype) * scale for n, scale, v in pairs), seen_where, Int8(inner)

    def rewind(self, until: Tensor) -> Store:
        return Int8(self.inner.rewind(until))


@spec
class Small(LayerSpec):
    heads: Size
    pattern: AnyPattern = Causal()

    def build(self, at: Site) -> "SmallAttention":
        return SmallAttention(self, at)


class SmallAttention(Headed):
    def __init__(self, spec: Small, at: Site) -> None:
        super().__init__(at, spec.heads, None, None, False)
        self.pattern = spec.pattern

    def init_state(self, room: Room) -> Past:
        shapes, dtypes = [(self.heads, self.head_size), (self.heads, 1)] * 2, (torch.int8, room.dtype) * 2
        return Int8(make_store(room, shapes, self.pattern.reach(room.restarts), dtypes=dtypes))

    def rewind(self, past: Store, until: Tensor) -> Store:
        return past.rewind(until)

    def forward(self, x: Tensor, ctx: Context, state: Store | None = None) -> tuple[Tensor, Past]:
        q, k, v = self.split(x)
        store = state or self.init_state(Room(ctx.where.none, {}, None, 0, False, x.dtype))
        (k, v), seen, store = store.append((k, v), ctx.where, self.pattern.reach("start" in ctx.where.labels))
        out = attend([Region(q, k, v, ctx.where, seen, self.pattern, self.head_size**-0.5)])
        return self.join(out), None if state is None else store


def model(mixer: LayerSpec) -> Model:
    return redraw(build(Block(mixer=mixer)), std=0.3)


def test_lawful_full_and_in_a_ring() -> None:
    for pattern in ("causal", "causal & (sinks(2) | window(5))"):
        assert_lawful(model(Small(heads=3, pattern=parse(pattern))), tokens())


@torch.no_grad()
def test_every_store_holds_the_same_and_errs_little() -> None:
    ids, ours, exact = tokens(), model(Small(heads=3)), model(Softmax(heads=3))(tokens())
    for capacity, inplace in ((None, False), (23, False), (23, True)):
        out = cut(ours, ids, (7, 1, 15), ours.init_state(3, capacity=capacity, inplace=inplace))
        assert 0 < (out - exact).abs().max() < 0.01 * exact.abs().max()
        assert_close(out, ours(ids), rtol=0, atol=1e-12)


def test_eight_numbers_and_a_scale_take_the_room_of_two() -> None:
    ours, full = (model(kind(heads=3)).init_state(2, capacity=50).past.body.mixer for kind in (Small, Softmax))
    held, plain = (sum(x.nbytes for x in store.values) for store in (ours.inner, full))
    assert held * 4 == plain  # (8 * 1 + 8) / (8 * 8) bytes in float64
