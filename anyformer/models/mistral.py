"""Mistral (Jiang et al. 2023): Llama with a window in every layer."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.sequential import Block
from anyformer.checkpoints.config import Config
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.grouped import SIGHT, attention
from anyformer.models.head import TIES, language
from anyformer.models.llama import (
    ATTENTION,
    GATED,
    MIXER,
    NORMS,
    POSITION,
    context,
    decoder,
    gated,
    layers,
    rms,
    tensors,
)
from anyformer.models.rope import rotary
from anyformer.patterns.base import Pattern
from anyformer.residuals.pre import Pre


def window(c: Config, usual: int | None) -> Pattern:
    """What each layer sees. usual: the window where the config does not say it."""
    return c.take("sliding_window", SIGHT, f"{MIXER}.pattern", usual)


class Mistral(ModelType):
    """Mistral, Llama with a window in every layer (Jiang et al. 2023)."""

    classes = ("MistralForCausalLM", "MistralModel", "MistralForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        longest, norm = context(c, 131_072), rms(c)
        mixer = attention(c, MIXER, rotary(c, POSITION, longest), kv_heads=8)
        block = Block(mixer=replace(mixer, pattern=window(c, 4096)), ff=gated(c), residual=Pre(norm=norm))
        head = language(c, name, tied=False)
        return decoder(c, longest, (block,) * layers(c), norm, head)

    def names(self, spec: ModelSpec) -> Names:
        return tensors({**NORMS, **ATTENTION, **GATED})
