"""Phi-3 (Abdin et al. 2024): Llama whose files have q, k and v as one map, and gate and up; long texts by LongRoPE."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.checkpoints.config import FRACTION, SIZE, Config, Inexpressible, or_none
from anyformer.checkpoints.names import Fused, Names
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.head import TIES, language
from anyformer.models.llama import (
    MIXER,
    NORMS,
    POSITION,
    RESIDUAL,
    context,
    decoder,
    gated,
    layers,
    no_padding,
    rms,
    tensors,
)
from anyformer.models.mistral import window
from anyformer.models.rope import partial_rotary
from anyformer.positions.rates.longrope import LongRoPE
from anyformer.positions.rotary import Rotary
from anyformer.residuals.pre import Pre

# keys of some files, which nothing reads, and what they say
OTHERS = {
    "attention_bias": False,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
}


def rotation(c: Config, longest: int | None, head_size: int) -> Rotary:
    """Unscaled or LongRoPE, with the length of training beside it."""
    position = partial_rotary(c, POSITION, longest, head_size, 1.0)
    match position.scaling:
        case None:
            c.ignore("original_max_position_embeddings")
        case LongRoPE(trained=trained):
            told = c.take("original_max_position_embeddings", SIZE, f"{POSITION}.scaling.trained", 4096)
            if told != trained:
                raise ValueError(
                    f"original_max_position_embeddings is {told} (4096 where it is missing), in rope_scaling it is "
                    f"{trained}; they should be the same"
                )
        case other:
            raise Inexpressible(f"phi3 scales positions by longrope alone; came {other}")
    return position


class Phi3(ModelType):
    """Phi-3, Llama with LongRoPE (Abdin et al. 2024)."""

    classes = ("Phi3ForCausalLM", "Phi3Model", "Phi3ForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        no_padding(c)
        c.ignore("embd_pdrop")  # which nothing reads
        c.said(OTHERS)
        longest, norm, width = context(c, 4096), rms(c, 1e-5), c.take("hidden_size", SIZE, "width")
        heads = c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
        mixer = Softmax(
            heads=heads,
            kv_heads=c.take("num_key_value_heads", or_none(SIZE), f"{MIXER}.kv_heads", None),
            pattern=window(c, None),
            position=rotation(c, longest, width // heads),
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        residual = Pre(norm=norm, dropout=c.take("resid_pdrop", FRACTION, f"{RESIDUAL}.dropout", 0.0))
        block = Block(mixer=mixer, ff=gated(c), residual=residual)
        return decoder(c, longest, (block,) * layers(c), norm, language(c, name, tied=False))

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "model.layers.{i}", "body.blocks.{i}"
        fused = {
            f"{theirs}.self_attn.qkv_proj.weight": Fused(tuple(f"{ours}.mixer.{part}.weight" for part in "qkv")),
            f"{theirs}.mlp.gate_up_proj.weight": Fused((f"{ours}.ff.gate.weight", f"{ours}.ff.up.weight")),
        }
        alone = {"self_attn.o_proj": "mixer.o", "mlp.down_proj": "ff.down"}
        return {**tensors({**NORMS, **alone}), **fused}
