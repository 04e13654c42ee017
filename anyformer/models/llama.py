"""Llama (Touvron et al. 2023): a pre-norm decoder with RMSNorm, rotary positions, grouped heads and SwiGLU."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, POSITIVE, SIZE, Config, or_none
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.gated import Gated
from anyformer.models.base import ModelType
from anyformer.models.head import language
from anyformer.models.rope import rotary
from anyformer.norms.rms import RMSNorm
from anyformer.residuals.pre import Pre

MIXER, FF = "body.blocks.0.mixer", "body.blocks.0.ff"


class Llama(ModelType):
    """Llama (Touvron et al. 2023)."""

    classes = ("LlamaForCausalLM", "LlamaModel")
    prefix = "model."
    ties: ClassVar = {"lm_head.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Decoder:
        context = c.take("max_position_embeddings", or_none(SIZE), "context", 2048)
        norm = RMSNorm(eps=c.take("rms_norm_eps", POSITIVE, "body.norm.eps", 1e-6))
        mixer = Softmax(
            heads=c.take("num_attention_heads", SIZE, f"{MIXER}.heads"),
            kv_heads=c.take("num_key_value_heads", or_none(SIZE), f"{MIXER}.kv_heads", None),
            head_size=c.take("head_dim", or_none(SIZE), f"{MIXER}.head_size", None),
            bias=c.take("attention_bias", FLAG, f"{MIXER}.bias", False),
            position=rotary(c, f"{MIXER}.position", context),
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        ff = Gated(
            hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
            activation=c.take("hidden_act", ACTIVATIONS, f"{FF}.activation", "silu"),
            bias=c.take("mlp_bias", FLAG, f"{FF}.bias", False),
        )
        block = Block(mixer=mixer, ff=ff, residual=Pre(norm=norm))
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=c.take("hidden_size", SIZE, "width"),
            context=context,
            body=Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=norm),
            head=language(c, bare=name == "LlamaModel", tied=False),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "model.layers.{i}", "body.blocks.{i}"
        table: dict[str, str] = {
            "model.embed_tokens.weight": "embedding.weight",
            f"{theirs}.input_layernorm.weight": f"{ours}.residual.norm.mixer.weight",
            f"{theirs}.post_attention_layernorm.weight": f"{ours}.residual.norm.ff.weight",
            "model.norm.weight": "body.norm.weight",
            "lm_head.weight": "head.out.weight",
        }
        for side in ("weight", "bias"):
            for part in ("q", "k", "v", "o"):
                table[f"{theirs}.self_attn.{part}_proj.{side}"] = f"{ours}.mixer.{part}.{side}"
            for part in ("gate", "up", "down"):
                table[f"{theirs}.mlp.{part}_proj.{side}"] = f"{ours}.ff.{part}.{side}"
        return {**table, f"{theirs}.self_attn.rotary_emb.inv_freq": None}
