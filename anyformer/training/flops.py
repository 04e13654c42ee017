"""What a declaration costs, for any scale: it is run on tensors that have shapes and no memory, and its work counted.

forward: the matrix products of one pass, 2 FLOPs for a multiplication with its addition; attention's T x T products are
counted whole, also where a causal kernel skips half of them. training = 3 forward (Chowdhery et al. 2022, appendix B),
4 where activations are computed again. MFU: those, a second, over what this machine reaches in a plain matrix product.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from anyformer.architectures.encoder_decoder import SOURCE, EncoderDecoderModel
from anyformer.blocks.stack import BlockStack
from anyformer.core.build import made
from anyformer.core.context import Context, Source, Where
from anyformer.core.modality import Modality, placed
from anyformer.core.model import Model
from anyformer.core.tree import tensors, tree_map
from anyformer.feedforward.experts import ExpertLayer
from anyformer.heads.base import TokenHead

if TYPE_CHECKING:
    from anyformer.core.spec import ModelSpec
    from anyformer.recipes.schema import Training

UNCOUNTABLE = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SECONDS = 0.3  # at most, to find out how fast this machine multiplies

FLASH = torch.ops.aten._scaled_dot_product_flash_attention
# torch counts attention under all of its names but this one
flop_registry[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = flop_registry[FLASH]


@dataclass(frozen=True)
class Forward:
    """One pass over a batch, up to its losses. flops: of its matrix products. kept: bytes that autograd keeps of it."""

    tokens: int
    flops: int
    kept: int


class Sketch:
    """A model of shapes alone; where its work depends on values, nothing can be counted: None. Experts are taken to
    share their tokens evenly.

    A row is a text of `length` tokens; where there is a source too, half of them are the source's.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.fake = FakeTensorMode()
        with self.fake:
            self.model: Model = made(spec)
        for part in self.model.modules():
            if isinstance(part, ExpertLayer):
                part.mix = partial(evenly, part)
        self.two = isinstance(self.model, EncoderDecoderModel)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def forward(
        self, rows: int, length: int, precision: str = "float32", checkpointing: bool = False
    ) -> Forward | None:
        """A forward pass of training."""
        own = {p.untyped_storage()._cdata for p in self.model.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            memory = tensor.untyped_storage()
            if memory._cdata not in own:
                kept[memory._cdata] = memory
            return tensor

        low = precision == "bfloat16"
        try:
            with (
                self.fake,
                traced(),
                FlopCounterMode(display=False) as counter,
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
                torch.autocast("cpu", torch.bfloat16, enabled=low),
            ):
                self._losses(rows, length, checkpointing)
        except UNCOUNTABLE:
            return None
        return Forward(rows * length, counter.get_total_flops(), sum(memory.nbytes() for memory in kept.values()))

    def flops_a_token(self, forward: Forward | None, checkpointing: bool) -> float:
        """Of training."""
        return self.pass_a_token(forward) * (4 if checkpointing else 3)

    def pass_a_token(self, forward: Forward | None) -> float:
        """Of one forward pass; 2 a parameter where nothing could be counted."""
        return 2 * self.parameters if forward is None else forward.flops / forward.tokens

    def activations(self, forward: Forward, training: Training) -> int:
        """Bytes kept at most from a batch's forward pass, which was counted without checkpointing.

        With it: what is kept outside of blocks, the blocks' inputs among it, and what one block at a time keeps.
        """
        if not training.checkpointing:
            return forward.kept
        outside = self.forward(training.batch, forward.tokens // training.batch, training.precision, checkpointing=True)
        assert outside is not None
        blocks = sum(part.count for part in self.model.modules() if isinstance(part, BlockStack))
        return outside.kept + (forward.kept - outside.kept) // max(1, blocks)

    def cache(self, length: int) -> int | None:
        """Bytes of one text's state after `length` tokens (and as many of a source); None: it cannot be cut."""
        with self.fake, traced(), torch.no_grad():
            try:
                sources = {SOURCE: self._source(1, length)} if self.two else None
                state = self.model.init_state(1, capacity=length, sources=sources)
            except (ValueError, *UNCOUNTABLE):
                return None
            memories = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors(state.past)}
            return sum(memory.nbytes() for memory in memories.values())

    def _losses(self, rows: int, length: int, checkpointing: bool) -> Tensor:
        """One pass, up to a loss of every answer."""
        model, sources = self.model, None
        if self.two:
            sources = {SOURCE: self._source(rows, length // 2)}
            length -= length // 2
        entering = blank(model.embedding, rows, length)
        ids, coords = placed(entering, model.embedding, None)

        def read(h: Tensor, where: Where) -> Tensor:
            if isinstance(model.head, TokenHead):
                return model.head.loss(h, ids, where)
            return (h if model.head is None else model.head(h, where)).float().log_softmax(-1)

        labels = dict.fromkeys(model.labels, ids)
        if coords is None and model.rank > 1:
            coords = ids[..., None].expand(*ids.shape, model.rank)
        given = {"labels": labels, "coords": coords, "sources": sources, "checkpoint": checkpointing}
        return model.step(entering, **given, reader=read)[0]

    def _source(self, rows: int, length: int) -> Source:
        """A source as `encode` makes it, whose checks would read ids."""
        model = self.model
        assert isinstance(model, EncoderDecoderModel)
        entering = blank(model.enter_source.embedding, rows, length)
        rows, length = placed(entering, model.enter_source.embedding, None)[0].shape
        where = Where.start(rows, length)
        x = model.enter_source(entering, where)
        return Source(model.encoder(x, Context(where, straight=True), None)[0], where)


def blank(embedding: nn.Module, rows: int, length: int) -> Tensor:
    """What enters to make so many vectors a row, all zeros."""
    if isinstance(embedding, Modality):
        return torch.zeros(rows, *embedding.shape(length))
    return torch.zeros(rows, length, dtype=torch.long)


def evenly(layer: ExpertLayer, x: Tensor, weights: Tensor, chosen: Tensor, counts: Tensor, ctx: Context) -> Tensor:
    """`ExpertLayer.mix` where every expert is sent as many tokens: which ones it would get, only values say."""
    rows, where = x.flatten(0, 1), tree_map(lambda value: value.flatten(0, 1), ctx.where)
    some = torch.arange(max(1, len(rows) * layer.top // layer.count))
    y, here = torch.zeros_like(rows), ctx.moved(tree_map(lambda value: value[some][None], where))
    for index in range(layer.count):
        said, _ = layer.one(index)(rows[some][None], here)
        y.index_add_(0, some, (said[0] * weights.flatten()[some, None]).to(y.dtype))
    return y.view_as(x)


@contextmanager
def traced() -> Iterator[None]:
    """Within it, checks that would read values are left out, as they are while a compiler traces the code."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def peak(device: torch.device, precision: str) -> float:
    """FLOPs a second of a plain product of square matrices here, measured once in a process."""
    return _measured(device, precision, torch.get_num_threads())


@functools.cache
def _measured(device: torch.device, precision: str, threads: int) -> float:
    """The best over sizes that double for as long as the next one fits the time."""
    began, best, size = time.perf_counter(), 0.0, 256

    def once(x: Tensor) -> float:
        start = time.perf_counter()
        torch.mm(x, x)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - start

    while True:
        x = torch.full((size, size), 0.5, device=device, dtype=DTYPES[precision])  # drawn, it would move the run's dice
        seconds = min(once(x) for _ in range(4))
        best = max(best, 2 * size**3 / seconds)
        size *= 2
        if time.perf_counter() - began + 4 * 8 * seconds > SECONDS or size > 8192:
            return best
