"""Blocks one above the other, the flow between them, and the norm at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from anyformer.core.context import Context
from anyformer.core.layer import Layer, Part
from anyformer.core.roles import AnyLayer, Flow, Norm
from anyformer.core.spec import LayerSpec, Site, spec
from anyformer.core.state import Past, Room
from anyformer.flows.base import Flow as FlowPart
from anyformer.flows.plain import Plain
from anyformer.norms.layer import LayerNorm


@spec
class Stack(LayerSpec):
    """Blocks, the flow between them, and a last norm.

    norm: what pre-norm blocks need at the end (Xiong et al. 2020); post-norm blocks take `no_norm`.
    """

    blocks: Annotated[tuple[AnyLayer, ...], Field(min_length=1)]
    flow: Flow = Plain()
    norm: Norm = LayerNorm()

    def build(self, at: Site) -> BlockStack:
        return BlockStack(self, at)


class Before(Part, ABC):
    """Vectors that stand before every text in a stack's eyes, and are no part of what it gives."""

    @abstractmethod
    def room(self, room: Room) -> Room:
        """The room for a text and for them."""

    @abstractmethod
    def until(self, until: Tensor) -> Tensor:
        """The time (B,) at which the stack sees what is at `until`; 0 is always possible, and forgets them too."""

    @abstractmethod
    def forward(self, x: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        """x (B, T, C) and where it is, with them in front where a text begins."""


class BlockStack(Layer):
    """Its past is the tuple of its blocks' pasts. prompt: vectors before every text that were learned later."""

    flow: FlowPart
    norm: nn.Module
    prompt: Before | None

    def __init__(self, spec: Stack, at: Site) -> None:
        super().__init__(at)
        count = len(spec.blocks)
        self.blocks = Part(at.at("blocks"))  # registers the blocks that it owns; `all` has the shared ones too
        for index, block in enumerate(spec.blocks):
            self.blocks.hold(at.at("blocks"), str(index), block, depth=(index, count))
        self.count, self.width = count, at.width
        self.hold(at, "flow", spec.flow, depth=(0, count))
        self.hold(at, "norm", spec.norm)
        self.register_module("prompt", None)

    @property
    def all(self) -> list[Layer]:
        """The blocks in order, those that are registered elsewhere included."""
        return [getattr(self.blocks, str(index)) for index in range(self.count)]

    def init_state(self, room: Room) -> Past:
        room = room if self.prompt is None else self.prompt.room(room)
        return tuple(block.init_state(room) for block in self.all)

    def rewind(self, past: Past, until: Tensor) -> Past:
        until = until if self.prompt is None else self.prompt.until(until)
        return tuple(block.rewind(p, until) for block, p in zip(self.all, past, strict=True))

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        length = x.shape[1]
        x, ctx = (x, ctx) if self.prompt is None else self.prompt(x, ctx)
        pasts = list(state or [None] * len(self.all))
        history = self.flow.open(x)
        for index, block in enumerate(self.all):

            def run(x: Tensor, block: Layer = block, index: int = index) -> Tensor:
                # a block that stands in several places is told which this is
                here = ctx if ctx.tape is None or block.path == f"{self.path}.blocks.{index}" else ctx.passing(index)
                if ctx.checkpoint:
                    out, pasts[index] = checkpoint(block, x, here, pasts[index], use_reentrant=False)
                else:
                    out, pasts[index] = block(x, here, pasts[index])
                return ctx.point(f"{self.path}.blocks.{index}", "stream", out)

            history = self.flow.around(index, run, history)
        out = self.norm(self.flow.close(history))
        out = out if self.prompt is None else out[:, out.shape[1] - length :]
        return out, None if state is None else tuple(pasts)
