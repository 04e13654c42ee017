"""RMT (Bulatov et al. 2022): M memory vectors ride along each segment of S tokens and are all it passes on.

Segment tau reads [m ; x ; m]: the memory before the text and the same vectors after it; what stands in the last M
places at the end is the memory of segment tau + 1. The mask is the plain causal one (the authors' later wrapper); their
first form, in which memory vectors see each other both ways, is the held layer's pattern `causal | same(memory)`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anyformer.core.context import BEYOND, Context, Where
from anyformer.core.fills import small
from anyformer.core.layer import Layer
from anyformer.core.roles import AnyLayer
from anyformer.core.spec import LayerSpec, Site, Size, Whole, spec
from anyformer.core.state import Past, Room
from anyformer.core.tree import choose, tree
from anyformer.memory.segments import Piece, align

LABEL, TEXT, READ, WRITE = "memory", 0, 1, 2  # the label of the vectors before and after the text


@spec
class RMT(LayerSpec):
    """Memory vectors carried from segment to segment (Bulatov et al. 2022).

    inner: the layer that sees one segment at a time. segment: S. slots: M. gradient: segments that a gradient reaches
    back, counted on the grid; 0: all.
    """

    inner: AnyLayer
    segment: Size
    slots: Size
    gradient: Whole = 0

    def build(self, at: Site) -> RecurrentMemory:
        return RecurrentMemory(self, at)


@tree
class MemoryPast:
    """memory, coming: (B, M, C), what the current segment reads and what the next one will (committed at its first
    token).

    inner: the held layer's past of this segment. start: (B,) the time of its first token. before: with slack, all this
    as it stood at the last border, so that a segment's first tokens can be forgotten; () without.
    """

    memory: Tensor
    coming: Tensor
    inner: Past
    start: Tensor
    before: Past


class RecurrentMemory(Layer):
    """memory: (M, C), what the first segment of every text reads."""

    inner: Layer
    memory: Tensor

    def __init__(self, spec: RMT, at: Site) -> None:
        super().__init__(at)
        self.size, self.slots, self.gradient = spec.segment, spec.slots, spec.gradient
        self.param("memory", ("M", "C"), {"M": spec.slots, "C": at.width}, small)
        self.hold(at, "inner", spec.inner, labels=(at.labels - {"start"}) | {LABEL}, rank=1, whole=frozenset({LABEL}))

    def init_state(self, room: Room) -> MemoryPast:
        if room.slack > self.size:
            raise ValueError(f"{self.path}: slack ({room.slack}) must be at most a segment ({self.size} tokens)")
        if room.slack and room.restarts:
            raise ValueError(f"{self.path}: tokens cannot be forgotten (slack {room.slack}) where texts share a row")
        before = self.start(room) if room.slack else ()
        return replace(self.start(room), before=before)

    def start(self, room: Room) -> MemoryPast:
        """The past before the first token; the held layer has room for one segment with its memory vectors."""
        time = room.like.time
        labels = {name: label for name, label in room.like.labels.items() if name != "start"} | {LABEL: time}
        inside = replace(
            room,
            like=Where(time, time[..., None], labels),
            capacity=self.size + 2 * self.slots,
            slack=room.slack + self.slots if room.slack else 0,
        )
        memory = self.first(room.batch).to(room.dtype)
        memory = memory.detach().clone() if room.inplace else memory
        return MemoryPast(memory, memory, self.inner.init_state(inside), time.new_zeros(room.batch), ())

    def first(self, batch: int) -> Tensor:
        """What the first segment of a text reads, (B, M, C)."""
        return self.memory.expand(batch, -1, -1)

    def rewind(self, past: MemoryPast, until: Tensor) -> MemoryPast:
        coming = choose(until <= past.start, past.memory, past.coming)  # what the forgotten border handed on
        memory, inner, start = past.memory, past.inner, past.start
        if past.before:
            kept = (past.before.memory, past.before.inner, past.before.start)
            memory, inner, start = choose(until <= start, kept, (memory, inner, start))
        empty = until <= 0
        first = self.first(until.shape[0]).to(memory.dtype)
        inner = self.inner.rewind(inner, torch.where(empty, 0, until - start + self.slots))
        memory, coming = choose(empty, (first, first), (memory, coming))
        return MemoryPast(memory, coming, inner, torch.where(empty, 0, start), past.before)

    def forward(self, x: Tensor, ctx: Context, state: MemoryPast | None = None) -> tuple[Tensor, Past]:
        past = state
        if past is None:  # even a fresh call walks its segments one after the other
            past = self.init_state(Room(ctx.where.none, ctx.sources, None, 0, False, x.dtype))
            ctx = replace(ctx, sources={})
        pieces, back = align(x, ctx.where, self.size)
        outs: list[Tensor] = []
        for number, piece in enumerate(pieces):
            if not torch.compiler.is_compiling() and not bool(piece.where.real.any()):
                outs.append(piece.x)
                continue
            out, past = self.read(piece, ctx.passing(number), past)
            outs.append(out)
            ctx = replace(ctx, sources={})  # a source that grew is appended once
        return back(outs), None if state is None else past

    def read(self, piece: Piece, ctx: Context, past: MemoryPast) -> tuple[Tensor, MemoryPast]:
        """One segment's piece: its outputs (B, W, C), and the past after it."""
        begins, ends = piece.begins, piece.ends
        before = choose(begins, replace(past, before=()), past.before) if past.before else ()
        coming = past.coming
        if self.gradient:
            coming = choose(piece.index % self.gradient == 0, coming.detach(), coming)
        coming = choose(piece.fresh, self.first(begins.shape[0]).to(coming.dtype), coming)
        memory = choose(begins, coming, past.memory)
        start = torch.where(begins, piece.start, past.start)
        inner = self.inner.rewind(past.inner, torch.where(begins, 0, BEYOND))
        # a compiled step always carries the memory's places, at time -1 where they are not due
        always = torch.compiler.is_compiling()
        reads, writes = always or bool(begins.any()), always or bool(ends.any())
        xs, where = [piece.x], self.inside(piece)
        held = memory.to(piece.x.dtype)
        if reads:
            xs, where = [held, *xs], self.vectors(piece, READ, begins).join(where)
        if writes:
            xs, where = [*xs, held], where.join(self.vectors(piece, WRITE, ends))
        y, inner = self.inner(torch.cat(xs, 1), ctx.moved(where), inner)
        first = self.slots if reads else 0
        if writes:
            coming = choose(ends, y[:, -self.slots :].to(coming.dtype), coming)
        return y[:, first : first + piece.x.shape[1]], MemoryPast(memory, coming, inner, start, before)

    def inside(self, piece: Piece) -> Where:
        """Where the text is within its segment: after the M vectors that it reads."""
        where = piece.where
        time = torch.where(where.real, where.offset % self.size + self.slots, -1)
        labels = {name: label for name, label in where.labels.items() if name != "start"}
        return Where(time, time[..., None], labels | {LABEL: torch.full_like(time, TEXT)})

    def vectors(self, piece: Piece, kind: int, due: Tensor) -> Where:
        """Where M memory vectors are in the rows in which they are due; they belong to the text's document."""
        first = 0 if kind == READ else self.slots + self.size
        place = torch.arange(first, first + self.slots, device=due.device)
        time = torch.where(due[:, None], place, -1)
        labels = {name: torch.zeros_like(time) for name in piece.where.labels if name != "start"}
        if "document" in labels:
            labels["document"] = piece.where.labels["document"].amax(1, keepdim=True).expand_as(time)
        return Where(time, time[..., None], labels | {LABEL: torch.full_like(time, kind)})
