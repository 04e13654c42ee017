"""OLMo 2 (OLMo Team 2024): Llama with norms behind each part, in the place of before, and over all queries and keys."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.sequential import Block
from anyformer.checkpoints.config import Config
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.grouped import attention
from anyformer.models.head import TIES, language
from anyformer.models.llama import (
    ATTENTION,
    GATED,
    MIXER,
    POSITION,
    context,
    decoder,
    gated,
    layers,
    rms,
    tensors,
    usual_size,
)
from anyformer.models.rope import rotary
from anyformer.norms.nothing import NoNorm
from anyformer.residuals.sandwich import Sandwich

BEHIND = {
    "post_attention_layernorm": "residual.after.mixer",
    "post_feedforward_layernorm": "residual.after.ff",
    "self_attn.q_norm": "mixer.q_norm",
    "self_attn.k_norm": "mixer.k_norm",
}


class Olmo2(ModelType):
    """OLMo 2, Llama with norms behind its parts (OLMo Team 2024)."""

    classes = ("Olmo2ForCausalLM", "Olmo2Model", "Olmo2ForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        longest, norm = context(c, 2048), rms(c, 1e-5)
        turn = rotary(c, POSITION, longest)
        mixer = attention(c, MIXER, turn, kv_heads=None, bias=False, sizes=usual_size(c))
        mixer = replace(mixer, qk_norm=norm, qk_norm_over="all_heads")
        block = Block(mixer=mixer, ff=gated(c), residual=Sandwich(norm=NoNorm(), after=norm))
        head = language(c, name, tied=False)
        return decoder(c, longest, (block,) * layers(c), norm, head)

    def names(self, spec: ModelSpec) -> Names:
        return tensors({**BEHIND, **ATTENTION, **GATED})
