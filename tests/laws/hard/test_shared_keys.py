"""Keys and values shared between blocks (Brandon et al. 2024): made and kept once, read by every block above.

A layer that holds the readers makes K = W_k norm(x), V = W_v norm(x) of what enters them, keeps them, and hands on all
that is seen as sources; block i reads softmax(W_q^i norm_i(x_i) Kᵀ / sqrt D) V.
"""

from dataclasses import replace

import torch
from harness import assert_lawful, build, redraw, tokens
from torch import Tensor, nn
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Context, Source
from anyformer.core.layer import Layer, Stateless
from anyformer.core.linear import Linear
from anyformer.core.model import Model
from anyformer.core.roles import AnyLayer
from anyformer.core.spec import LayerSpec, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.core.tree import tree
from anyformer.kernels.attention import Region, attend
from anyformer.norms.layer import LayerNorm
from anyformer.patterns.base import AnyPattern, parse
from anyformer.stores.base import Store
from anyformer.stores.room import make_store

PATTERN = parse("causal & (sinks(1) | window(6))")


@spec
class Reader(LayerSpec):
    heads: Size
    pattern: AnyPattern = PATTERN

    def build(self, at: Site) -> "ReadingAttention":
        return ReadingAttention(self, at)


class ReadingAttention(Stateless):
    """q and o of its own; it keeps nothing."""

    def __init__(self, spec: Reader, at: Site) -> None:
        super().__init__(at)
        self.heads, self.pattern = spec.heads, spec.pattern
        self.q, self.o = (Linear(at.at(name), "C", "C", {"C": at.width}) for name in ("q", "o"))

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        keys, values = ctx.sources["keys"], ctx.sources["values"]
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (self.q(x), keys.vectors, values.vectors))
        out = attend([Region(q, k, v, ctx.where, keys.where, self.pattern, q.shape[-1] ** -0.5)])
        return self.o(out.flatten(2)), state


@spec
class Keys(LayerSpec):
    inner: AnyLayer
    pattern: AnyPattern = PATTERN

    def build(self, at: Site) -> "SharedKeys":
        return SharedKeys(self, at)


@tree
class KeysPast:
    store: Store
    inner: Past


class SharedKeys(Layer):
    """The owner: k, v, their norm and their store; `inner` reads them."""

    norm: nn.Module
    inner: Layer

    def __init__(self, spec: Keys, at: Site) -> None:
        super().__init__(at)
        self.pattern, self.width = spec.pattern, at.width
        self.k, self.v = (Linear(at.at(name), "C", "C", {"C": at.width}) for name in ("k", "v"))
        self.hold(at, "norm", LayerNorm())
        self.hold(at, "inner", spec.inner, sources=at.sources | {"keys", "values"})

    def init_state(self, room: Room) -> Past:
        store = make_store(room, [(self.width,)] * 2, self.pattern.reach(room.restarts))
        return KeysPast(store, self.inner.init_state(room))

    def rewind(self, past: KeysPast, until: Tensor) -> Past:
        return KeysPast(past.store.rewind(until), self.inner.rewind(past.inner, until))

    def forward(self, x: Tensor, ctx: Context, state: KeysPast | None = None) -> tuple[Tensor, Past]:
        new, seen, store = (self.k(self.norm(x)), self.v(self.norm(x))), ctx.where, None
        if state is not None:
            new, seen, store = state.store.append(new, ctx.where, self.pattern.reach("start" in seen.labels))
        sources = {name: Source(vectors, seen) for name, vectors in zip(("keys", "values"), new, strict=True)}
        y, inner = self.inner(x, replace(ctx, sources={**ctx.sources, **sources}), state and state.inner)
        return y, None if store is None else KeysPast(store, inner)


def model() -> Model:
    readers = Stack(blocks=(Block(mixer=Reader(heads=4)), Block(mixer=Reader(heads=3)), Block(mixer=Reader(heads=2))))
    return redraw(build(Stack(blocks=(Block(mixer=Softmax(heads=4)), Keys(inner=readers)))))


def test_lawful() -> None:
    assert_lawful(model(), tokens())


@torch.no_grad()
def test_is_the_plain_loop() -> None:
    layer, sees = model().body.all[1], torch.ones(19, 19).tril(0).bool() & ~torch.ones(19, 19).tril(-6).bool()
    sees[:, 0] = True
    x = torch.randn(2, 19, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    out, h = layer(x, Context.start(2, 19))[0], x.clone()
    k, v = layer.k(layer.norm(x)), layer.v(layer.norm(x))
    for block in layer.inner.all:
        a, mixer = block.residual.norm["mixer"](h), block.mixer
        heads = zip(*(y.chunk(mixer.heads, -1) for y in (mixer.q(a), k, v)), strict=True)
        scores = ((q @ key.mT / key.shape[-1] ** 0.5, value) for q, key, value in heads)
        said = [s.masked_fill(~sees, -torch.inf).softmax(-1) @ value for s, value in scores]
        h = h + mixer.o(torch.cat(said, -1))
        h = h + block.ff(block.residual.norm["ff"](h), Context.start(2, 19))[0]
    assert_close(out, layer.inner.norm(h), rtol=0, atol=1e-9)


def test_the_state_holds_one_copy() -> None:
    shared = model().init_state(2, capacity=64).past.body[1]
    assert [block.mixer for block in shared.inner] == [(), (), ()]
    assert shared.store.values[0].shape == (2, 1 + 6 + 1, 24)
