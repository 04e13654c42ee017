"""Causal HyperAttention (Han et al. 2023) in a lawful form: leaves of tokens and dyadic nodes, counted from the start.

A query in leaf a reads its leaf exactly and, for each bit l of a, the node of 2^l leaves to its left: the block of keys
around its own hash among the node's keys, sorted once, when the node is complete, and samples of the rest. No query
looks at another: each finds its block alone, and samples are a function of (layer, level, node, head).
"""

import zlib
from dataclasses import replace
from math import log

import torch
from harness import assert_lawful, build, redraw, tokens
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.attention.heads import Headed
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import BEYOND, Context, Where
from anyformer.core.fills import normal
from anyformer.core.spec import LayerSpec, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.core.tree import tree
from anyformer.kernels.attention import Region, attend
from anyformer.patterns.causal import Causal
from anyformer.patterns.full import Full
from anyformer.stores.base import Store
from anyformer.stores.room import make_store

EVERYTHING = (0, float("inf"))


@spec
class Hyper(LayerSpec):
    heads: Size
    leaf: Size = 4
    block: Size = 2
    samples: Size = 3  # a node of no more keys is read whole
    bits: Size = 3

    def build(self, at: Site) -> "HyperAttention":
        return HyperAttention(self, at)


@tree
class HyperPast:
    store: Store
    order: Tensor  # (B, levels, H, N): the keys of every complete node by their hash
    codes: Tensor  # (B, levels, H, N): node 2^R + hash, in that order


class HyperAttention(Headed):
    planes: Tensor

    def __init__(self, spec: Hyper, at: Site) -> None:
        super().__init__(at, spec.heads, None, None, bias=False)
        self.leaf, self.block, self.samples, self.bits = spec.leaf, spec.block, spec.samples, spec.bits
        self.buffer("planes", (spec.heads, self.head_size, spec.bits), normal(1.0))

    def init_state(self, room: Room) -> Past:
        none = room.like.time.new_zeros(room.batch, 0, self.heads, 0)
        return HyperPast(make_store(room, [(self.heads, self.head_size)] * 2, EVERYTHING), none, none)

    def rewind(self, past: HyperPast, until: Tensor) -> HyperPast:
        return replace(past, store=past.store.rewind(until))  # a node is sorted anew when it is complete again

    def forward(self, x: Tensor, ctx: Context, state: HyperPast | None = None) -> tuple[Tensor, Past]:
        past = self.init_state(Room(ctx.where.none, {}, None, 0, False, x.dtype)) if state is None else state
        q, k, v = self.split(x)
        (k, v), seen, store = past.store.append((k, v), ctx.where, EVERYTHING)
        k, v = (self.by_time(y, seen) for y in (k, v))
        past = self.sorted(replace(past, store=store), k, ctx.where)
        time, hashes = ctx.where.time.clamp(min=0), self.hashes(q)
        leaf = (time // self.leaf * self.leaf)[..., None, None] + torch.arange(self.leaf).expand(self.heads, -1)
        regions = [self.region(q, k, v, leaf, q.new_zeros(()), ctx.where)]
        for level in range(past.order.shape[1]):
            size = self.leaf << level
            due, width = time // size % 2 == 1, min(self.block, size)
            node = torch.where(due, time // size - 1, 0)
            code = (node[..., None] << self.bits) + hashes  # (B, T, H)
            ends = (
                torch.searchsorted(past.codes[:, level].contiguous(), code.transpose(1, 2).contiguous(), right=right)
                for right in (False, True)
            )
            start = (node * size)[..., None]
            middle = (sum(ends) // 2).transpose(1, 2).clamp(start, start + size - 1)
            mine = (middle - start)[..., None] // width  # (B, T, H, 1): which block
            draws, due = self.draws(node, level, size), due[..., None, None]
            for place, counted in ((mine * width + torch.arange(width), due), (draws, due & (draws // width != mine))):
                at = along(past.order[:, level].transpose(1, 2), start[..., None] + place)
                weight = log(size / min(self.samples, size)) if place is draws else 0.0
                scores = q.new_full(at.shape, weight).masked_fill(~counted, torch.finfo(q.dtype).min)
                regions.append(self.region(q, k, v, at, scores))
        return self.join(attend(regions).view_as(q)), None if state is None else past

    def region(self, q: Tensor, k: Tensor, v: Tensor, at: Tensor, scores: Tensor, where: Where | None = None) -> Region:
        """Every query with keys of its own, those at times (B, T, H, S): each is a row with one query."""
        q, (k, v) = q.flatten(0, 1)[:, None], (along(y, at).transpose(2, 3).flatten(0, 1) for y in (k, v))
        scores = scores.expand(at.shape).flatten(0, 1)[:, :, None]
        theirs = at[:, :, 0].flatten(0, 1) if where else torch.zeros(len(q), at.shape[3], dtype=torch.long)
        mine = where.time.flatten()[:, None] if where else theirs[:, :1]
        q_where, k_where = (Where(time, time[..., None], {}) for time in (mine, theirs))
        return Region(q, k, v, q_where, k_where, Causal() if where else Full(), self.head_size**-0.5, scores)

    def by_time(self, values: Tensor, where: Where) -> Tensor:
        """(B, S, H, D) in the store's order -> (B, N, H, D), each at its time; N is a whole number of leaves."""
        size = -(-values.shape[1] // self.leaf) * self.leaf
        slot = torch.where(where.real, where.time, size)[..., None, None].expand_as(values)
        return values.new_zeros(len(values), size + 1, *values.shape[2:]).scatter(1, slot, values)[:, :-1]

    def sorted(self, past: HyperPast, k: Tensor, where: Where) -> HyperPast:
        """The past with the nodes sorted that these tokens completed."""
        length = k.shape[1]
        levels = (length // self.leaf).bit_length()
        sizes = self.leaf * 2 ** torch.arange(levels)[:, None, None]
        blank = (torch.arange(length) // sizes << self.bits).expand(len(k), -1, self.heads, -1)
        grow = (0, length - past.order.shape[3], 0, 0, 0, levels - past.order.shape[1])
        order = F.pad(past.order, grow)
        known = F.pad(torch.ones_like(past.codes, dtype=torch.bool), grow)
        codes = torch.where(known, F.pad(past.codes, grow), blank)
        first, after = torch.where(where.real, where.time, BEYOND).amin(1), where.time.amax(1) + 1
        for level in range(levels):
            size = self.leaf << level
            for start in range(0, length - size + 1, 2 * size):
                rows = (first < start + size) & (after >= start + size)
                if rows.any():
                    order[rows, level, :, start : start + size], hashes = self.arrange(
                        k[rows, start : start + size], start
                    )
                    codes[rows, level, :, start : start + size] = (start // size << self.bits) + hashes
        return replace(past, order=order, codes=codes)

    def arrange(self, keys: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Keys (B, S, H, D) of one node -> their times by hash and the hashes, (B, H, S)."""
        hashes, order = self.hashes(keys).transpose(1, 2).sort(stable=True)
        return order + start, hashes

    def hashes(self, x: Tensor) -> Tensor:
        """(B, T, H, D) -> (B, T, H): on which side of R planes, counted so that neighbours differ in one of them."""
        code = ((torch.einsum("bthd,hdr->bthr", x, self.planes) > 0) << torch.arange(self.bits)).sum(-1)
        for shift in (1, 2, 4, 8, 16):
            code = code ^ (code >> shift)
        return code

    def draws(self, node: Tensor, level: int, size: int) -> Tensor:
        """node (B, T) -> places (B, T, H, m) in the node's sorted keys, the same in every call."""
        if self.samples >= size:
            return torch.arange(size).expand(*node.shape, self.heads, -1)
        x = (node[..., None, None] * 64 + level) * self.heads + torch.arange(self.heads)[:, None]
        x = x * self.samples + torch.arange(self.samples) + zlib.crc32(self.path.encode())
        for _ in range(3):
            x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
        return (x ^ (x >> 16)) % size


def along(values: Tensor, at: Tensor) -> Tensor:
    """values (B, N, H, …) at times (B, T, H, S) -> (B, T, H, S, …)."""
    rows, heads = torch.arange(at.shape[0])[:, None, None, None], torch.arange(at.shape[2])[:, None]
    return values[rows, at, heads]


def hyper(**sizes: int) -> HyperAttention:
    return redraw(build(Stack(blocks=(Block(mixer=Hyper(heads=4, **sizes)),)))).body.all[0].mixer


def x(length: int) -> Tensor:
    return torch.randn(2, length, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(length))


def test_is_the_sum_that_the_paper_writes() -> None:
    """Plain loops: every query's keys listed with their weights, then one softmax."""
    mixer, length = hyper(), 23
    q, k, v = mixer.split(x(length))
    key_hashes, hashes, out = mixer.hashes(k), mixer.hashes(q), torch.zeros_like(q)
    for b in range(2):
        for t in range(length):
            for h in range(4):
                keys, leaf = [(s, 0.0) for s in range(t // 4 * 4, t + 1)], t // 4
                for level in range(3):
                    if leaf >> level & 1:
                        size, start = 4 << level, (leaf >> level + 1 << level + 1) * 4
                        order = sorted(range(start, start + size), key=lambda s: (int(key_hashes[b, s, h]), s))
                        below, equal = (
                            sum(bool(test(key_hashes[b, s, h], hashes[b, t, h])) for s in order)
                            for test in (torch.lt, torch.eq)
                        )
                        mine = min((below + below + equal) // 2, size - 1) // 2
                        keys += [(s, 0.0) for s in order[2 * mine : 2 * mine + 2]]
                        drawn = mixer.draws(torch.tensor([[start // size]]), level, size)[0, 0, h].tolist()
                        keys += [(order[i], log(size / 3)) for i in drawn if i // 2 != mine]
                at, bias = [s for s, _ in keys], torch.tensor([w for _, w in keys], dtype=q.dtype)
                out[b, t, h] = (k[b, at, h] @ q[b, t, h] * mixer.head_size**-0.5 + bias).softmax(0) @ v[b, at, h]
    assert_close(mixer(x(length), Context.start(2, length))[0], mixer.join(out), rtol=0, atol=1e-9)


def test_equals_dense_where_nothing_is_left_out() -> None:
    dense = build(Stack(blocks=(Block(mixer=Softmax(heads=4)),))).body.all[0].mixer
    for length, sizes in ((4, {}), (23, {"block": 64}), (23, {"samples": 64}), (23, {"leaf": 32})):
        mixer = hyper(**sizes)
        dense.load_state_dict(mixer.state_dict())
        ours, theirs = (m(x(length), Context.start(2, length))[0] for m in (mixer, dense))
        assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_later_queries_change_nothing_and_nodes_are_sorted_once() -> None:
    mixer, calls = hyper(), []
    turned = torch.cat([x(23)[:, :14], x(23)[:, 14:].roll(2, 1)], 1)
    ours, theirs = (mixer(y, Context.start(2, 23))[0][:, :14] for y in (x(23), turned))
    assert torch.equal(ours, theirs)
    arrange = mixer.arrange
    mixer.arrange = lambda keys, start: calls.append((start, keys.shape[1])) or arrange(keys, start)
    past = mixer.init_state(Room(Where.start(2, 0), {}, None, 0, False, torch.float64))
    for t in range(20):
        _, past = mixer(x(20)[:, t : t + 1], Context.start(2, 1, t), past)
    assert calls == [(0, 4), (0, 8), (8, 4), (0, 16), (16, 4)]


def test_neighbours_in_order_lie_on_different_sides_of_one_plane() -> None:
    mixer, sides = hyper(bits=5), torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 5)
    mixer.planes = torch.eye(6, 5, dtype=torch.float64).expand(4, -1, -1)
    order = mixer.hashes(F.pad(sides, (0, 1)).expand(4, -1, -1).transpose(0, 1)[None])[0, :, 0].argsort()
    assert ((sides[order].diff(dim=0) != 0).sum(1) == 1).all()


def test_is_lawful() -> None:
    mixer = Hyper(heads=2, leaf=2, block=1, samples=1)
    assert_lawful(redraw(build(Stack(blocks=(Block(mixer=mixer),)))), tokens(2, 14))
