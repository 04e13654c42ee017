"""Granite (IBM 2024): Llama with fixed factors on embeddings, scores, what joins the stream, and logits."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.sequential import Block
from anyformer.checkpoints.config import POSITIVE, Config, Kind
from anyformer.checkpoints.names import Names
from anyformer.core.spec import HeadSpec, ModelSpec
from anyformer.embeddings.tokens import Tokens
from anyformer.models.base import ModelType
from anyformer.models.grouped import attention
from anyformer.models.head import TIES, language, speaks
from anyformer.models.llama import (
    ATTENTION,
    GATED,
    MIXER,
    NORMS,
    POSITION,
    RESIDUAL,
    context,
    decoder,
    gated,
    layers,
    rms,
    tensors,
    usual_size,
)
from anyformer.models.rope import rotary
from anyformer.residuals.pre import Pre

DIVISOR: Kind[float] = Kind(POSITIVE.what, lambda value: 1 / POSITIVE.read(value), lambda scale: 1 / scale)


def head(c: Config, name: str) -> HeadSpec | None:
    """Its logits are divided."""
    if not speaks(name):
        c.ignore("logits_scaling")
        return language(c, name, tied=False)
    return language(c, name, tied=False, scale=c.take("logits_scaling", DIVISOR, "head.scale", 1.0))


class Granite(ModelType):
    """Granite, Llama with four fixed factors (IBM 2024)."""

    classes = ("GraniteForCausalLM", "GraniteModel")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        longest, norm = context(c, 2048), rms(c)
        turn = rotary(c, POSITION, longest)
        mixer = attention(c, MIXER, turn, kv_heads=None, bias=False, sizes=usual_size(c))
        mixer = replace(mixer, scale=c.take("attention_multiplier", POSITIVE, f"{MIXER}.scale", 1.0))
        residual = Pre(norm=norm, scale=c.take("residual_multiplier", POSITIVE, f"{RESIDUAL}.scale", 1.0))
        block = Block(mixer=mixer, ff=gated(c, bias=False), residual=residual)
        embedding = Tokens(scale=c.take("embedding_multiplier", POSITIVE, "embedding.scale", 1.0))
        return decoder(c, longest, (block,) * layers(c), norm, head(c, name), embedding=embedding)

    def names(self, spec: ModelSpec) -> Names:
        return tensors({**NORMS, **ATTENTION, **GATED})
