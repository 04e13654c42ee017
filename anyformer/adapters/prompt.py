"""Prompt tuning (Lester et al. 2021): P vectors that are learned stand before every text.

A stack of blocks reads [p_1 … p_P ; x] and gives what it says of x. The prompt has the times and coordinates 0 … P-1,
and the text follows; positions that were added at the model's entrance are the text's own. The vectors begin as those
of tokens drawn from the vocabulary (section 2.1.1 there).
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import torch
from torch import Tensor

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.architectures.tokens import TokenModel
from anyformer.blocks.stack import Before, BlockStack
from anyformer.core.context import Context, Where
from anyformer.core.errors import ConfigError
from anyformer.core.fills import small
from anyformer.core.modality import Modality
from anyformer.core.model import Model
from anyformer.core.paths import chosen, steps
from anyformer.core.spec import AdapterSpec, Site, Size, spec
from anyformer.core.state import Room


@spec
class Prompt(AdapterSpec):
    """Learned vectors before every text (Lester et al. 2021).

    length: P. at: the stack of blocks that reads them; `encoder` where there are two.
    """

    length: Size = 20
    at: str = "body"

    def attach(self, model: Model) -> None:
        if "document" in model.labels:
            raise ConfigError("prompt: texts that share a row cannot have one each; take a model without `document`")
        stack = self.stack(model)
        if stack.prompt is not None:
            raise ConfigError(f"prompt.at: {stack.path} has a prompt already")
        stack.prompt = LearnedPrompt(self, stack)

    def stack(self, model: Model) -> BlockStack:
        """The stack that reads the prompt: what stands at the path, or the first one in it."""
        stacks = {path: part for path, part in model.named_modules() if isinstance(part, BlockStack)}
        return stacks[chosen((self.at,), stacks, "prompt.at", "stack of blocks")[0]]

    @torch.no_grad()
    def begin(self, model: Model, seed: int) -> None:
        stack, prompt = self.stack(model), self.stack(model).prompt
        assert isinstance(prompt, LearnedPrompt)
        if isinstance(model, EncoderDecoderModel) and steps(stack.path)[0] == "encoder":
            enter, words = model.enter_source, model.source_vocabulary
        elif isinstance(model, TokenModel | EncoderDecoderModel):
            enter, words = model.enter, model.spec.vocabulary
        else:
            return
        if words is None or isinstance(enter.embedding, Modality):
            return
        draw = torch.Generator().manual_seed(zlib.crc32(f"{seed} {prompt.path}.tokens".encode()))
        ids = torch.randint(words, (1, len(prompt.vectors)), generator=draw).to(prompt.vectors.device)
        nowhere = torch.zeros_like(ids)
        coords = nowhere[..., None].expand(*ids.shape, model.rank)
        where, training = Where(nowhere, coords, dict.fromkeys(model.labels, nowhere)), model.training
        model.eval()  # nothing of them is dropped
        prompt.vectors.copy_(enter(ids, where)[0])
        model.train(training)


class LearnedPrompt(Before):
    """vectors: (P, C)."""

    vectors: Tensor

    def __init__(self, spec: Prompt, stack: BlockStack) -> None:
        super().__init__(Site(f"{stack.path}.prompt", stack.width))
        self.param("vectors", ("M", "C"), {"M": spec.length, "C": stack.width}, small)

    def room(self, room: Room) -> Room:
        return room if room.capacity is None else replace(room, capacity=room.capacity + len(self.vectors))

    def until(self, until: Tensor) -> Tensor:
        return torch.where(until <= 0, 0, until + len(self.vectors))

    def forward(self, x: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        where, count = ctx.where, len(self.vectors)
        real = where.real
        after = Where(
            torch.where(real, where.time + count, -1),
            torch.where(real[..., None], where.coords + count, where.coords),
            where.labels,
        )
        begins = (where.time == 0).any(1)
        # a compiled step always carries the vectors, at time -1 where no text begins
        if not torch.compiler.is_compiling() and not bool(begins.any()):
            return x, ctx.moved(after)
        time = torch.where(begins[:, None], torch.arange(count, device=x.device), -1)
        labels = {name: torch.zeros_like(time) for name in where.labels}
        before = Where(time, time[..., None].expand(*time.shape, where.coords.shape[-1]), labels)
        vectors = self.vectors.to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([vectors, x], 1), replace(ctx, where=before.join(after))
