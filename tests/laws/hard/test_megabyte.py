"""MEGABYTE (Yu et al. 2023): a large layer reads patches of P bytes, a small one spells each of them.

Output t foretells byte t + 1, the p-th of patch k = t // P, p = t mod P. G_k = global(pad, patch 0 … patch k - 1)_k;
out_t = local(W G_(k,p) + (x_t if p > 0 else pad)). Patch k - 1 is complete when x_kP comes, so nothing waits.
"""

from dataclasses import replace

import pytest
import torch
from harness import assert_lawful, build, redraw, tokens
from torch import Tensor
from torch.testing import assert_close

from anyformer.attention.linear import Linear as LinearAttention
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Context, Where
from anyformer.core.fills import normal
from anyformer.core.layer import Layer
from anyformer.core.linear import Linear
from anyformer.core.roles import AnyLayer
from anyformer.core.spec import LayerSpec, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.core.tree import tree
from anyformer.patterns.base import parse
from anyformer.positions.rotary import Rotary
from anyformer.stores.base import Store
from anyformer.stores.room import make_store

BOTH = (0, 2)  # a call's first bytes may still read the patch before the first that it completes


@spec
class Megabyte(LayerSpec):
    outer: AnyLayer  # over patches; as wide as a whole patch
    local: AnyLayer  # over the bytes of one patch, which it sees as a document of its own
    patch: Size

    def build(self, at: Site) -> "TwoClocks":
        return TwoClocks(self, at)


@tree
class PatchPast:
    outer: Past
    local: Past
    bytes: Store  # the unfinished patch
    read: Store  # G of the latest patch


class TwoClocks(Layer):
    def __init__(self, spec: Megabyte, at: Site) -> None:
        super().__init__(at)
        if at.labels:  # patches restart with each text, and how many came before is no function of a token's place
            raise ValueError(f"{at.path}: texts cannot be packed into rows of patches; drop labels {sorted(at.labels)}")
        self.size, sizes = spec.patch, {"P": spec.patch, "C": at.width}
        self.hold(at, "outer", spec.outer, width=spec.patch * at.width)
        self.hold(at, "local", spec.local, labels=frozenset({"document", "start"}))
        self.into = Linear(at.at("into"), "C", "C", sizes)
        self.param("first_patch", ("P", "C"), sizes, normal(0.02))
        self.param("first_byte", ("C",), sizes, normal(0.02))

    def patches(self, tokens: int) -> int:
        return -(-tokens // self.size)

    def init_state(self, room: Room) -> Past:
        most = None if room.capacity is None else self.patches(room.capacity)
        coarse = replace(room, capacity=most, slack=self.patches(room.slack))
        fine = replace(room, like=self.within(room.like))
        C, P = self.first_byte.shape[0], self.size
        stores = make_store(room, [(C,)], (0, P)), make_store(coarse, [(P, C)], BOTH)
        return PatchPast(self.outer.init_state(coarse), self.local.init_state(fine), *stores)

    def rewind(self, past: PatchPast, until: Tensor) -> PatchPast:
        patches = -(-until // self.size)
        outer, read = self.outer.rewind(past.outer, patches), past.read.rewind(patches)
        return PatchPast(outer, self.local.rewind(past.local, until), past.bytes.rewind(until), read)

    def within(self, where: Where) -> Where:
        """The local clock: the same times, but every patch is a document."""
        start = torch.where(where.real, where.time // self.size * self.size, -1)
        return Where(where.time, (where.time - start)[..., None], {"document": start, "start": start})

    def borders(self, where: Where) -> Where:
        """The global clock: one token for each kP that comes, at time k."""
        begins = where.real & (where.time % self.size == 0)
        time = torch.where(begins, where.time // self.size, -1).sort(1).values[:, -self.patches(where.time.shape[1]) :]
        return Where(time, time[..., None], {})

    def forward(self, x: Tensor, ctx: Context, state: PatchPast | None = None) -> tuple[Tensor, Past]:
        past = self.init_state(Room(ctx.where.none, {}, None, 0, False, x.dtype)) if state is None else state
        (seen,), seen_where, kept = past.bytes.append((x,), ctx.where, (0, self.size))
        coarse, place = self.borders(ctx.where), torch.arange(self.size, device=x.device)
        patches = pick(seen, seen_where, (coarse.time[..., None] - 1) * self.size + 1 + place)  # (B, K, P, C)
        patches = torch.where((coarse.time == 0)[..., None, None], self.first_patch, patches)
        y, outer = self.outer(patches.flatten(2), ctx.moved(coarse), past.outer)
        (read,), read_where, last = past.read.append((y.unflatten(2, patches.shape[2:]),), coarse, BOTH)
        fine = self.within(ctx.where)
        mine = pick(read, read_where, torch.where(fine.real, fine.time // self.size, -1))  # (B, T, P, C)
        mine = mine.gather(2, fine.coords.clamp(min=0)[..., None].expand(-1, -1, 1, x.shape[2]))[:, :, 0]
        spelt = torch.where(fine.coords > 0, x, self.first_byte)
        out, local = self.local(self.into(mine) + spelt, ctx.moved(fine), past.local)
        return out, None if state is None else PatchPast(outer, local, kept, last)


def pick(values: Tensor, where: Where, time: Tensor) -> Tensor:
    """What stands at these times: values (B, S, …), time (B, …)."""
    slot = (where.time[:, None] == time.flatten(1)[..., None]).long().argmax(-1)
    return values[torch.arange(len(values))[:, None], slot].unflatten(1, time.shape[1:])


def body(local: LayerSpec, size: int) -> Megabyte:
    outer = Stack(blocks=(Block(mixer=Softmax(heads=2, position=Rotary())),) * 2)
    return Megabyte(outer=outer, local=Stack(blocks=(Block(mixer=local),) * 2), patch=size)


SPELL = Softmax(heads=4, position=Rotary(), pattern=parse("causal & documents & window(4)"))


@pytest.mark.parametrize(("local", "slack"), [(SPELL, 9), (LinearAttention(heads=4), 3)])
def test_is_lawful_in_every_patch_and_across(local: LayerSpec, slack: int) -> None:
    assert_lawful(redraw(build(body(local, 4))), tokens(length=18), slack=slack)


def test_packed_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="texts cannot be packed"):
        build(body(SPELL, 4), labels=("document",))


def test_patches_of_one_byte_run() -> None:
    assert_lawful(redraw(build(body(SPELL, 1))), tokens(length=18), slack=0)


def test_is_the_paper_written_for_whole_sequences() -> None:
    model, ids, P = redraw(build(body(SPELL, 4))), tokens(2, 20), 4
    x, layer = model.embedding(ids), model.body
    patches = torch.cat([layer.first_patch.expand(2, 1, -1, -1), x[:, 1:17].unflatten(1, (4, P))], 1)  # (B, K, P, C)
    G = layer.outer(patches.flatten(2), Context.start(2, 5))[0].unflatten(2, (P, -1))
    spelt = torch.cat([layer.first_byte.expand(2, 5, 1, -1), x.unflatten(1, (5, P))[:, :, 1:]], 2)
    where, zero = Where.start(2 * 5, P), torch.zeros(10, P, dtype=torch.long)
    alone = Context(replace(where, labels={"document": zero, "start": zero}))  # B K sequences of P bytes
    out = layer.local((layer.into(G) + spelt).flatten(0, 1), alone)[0].view(2, 20, -1)
    assert_close(model(ids), model.head(out, Context.start(*ids.shape).where), rtol=0, atol=1e-9)
