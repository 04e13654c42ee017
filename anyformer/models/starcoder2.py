"""StarCoder 2 (Lozhkov et al. 2024): Llama's attention with GPT's LayerNorm, MLP and biases, and perhaps a window."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, POSITIVE, SIZE, Config, or_none
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.mlp import MLP
from anyformer.models.base import ModelType
from anyformer.models.grouped import unless
from anyformer.models.head import TIES, language
from anyformer.models.llama import (
    ATTENTION,
    FF,
    MIXER,
    NORMS,
    POSITION,
    RESIDUAL,
    context,
    decoder,
    layers,
    tensors,
)
from anyformer.models.mistral import window
from anyformer.models.rope import rotary
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.pre import Pre

# keys of the first files, which nothing reads
OLD_KEYS = (
    "activation_function",
    "attention_softmax_in_fp32",
    "layer_norm_epsilon",
    "mlp_type",
    "norm_type",
    "scale_attention_softmax_in_fp32",
    "scale_attn_weights",
)


class StarCoder2(ModelType):
    """StarCoder 2, with an MLP and biases everywhere (Lozhkov et al. 2024)."""

    classes = ("Starcoder2ForCausalLM", "Starcoder2Model", "Starcoder2ForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore(*OLD_KEYS)
        longest = context(c, 4096)
        norm = LayerNorm(eps=c.take("norm_epsilon", POSITIVE, "body.norm.eps", 1e-5))
        heads, bias = (
            c.take("num_attention_heads", SIZE, f"{MIXER}.heads"),
            c.take("use_bias", FLAG, f"{FF}.bias", True),
        )
        mixer = Softmax(
            heads=heads,
            kv_heads=c.take("num_key_value_heads", unless(heads), f"{MIXER}.kv_heads", 2),
            head_size=c.take("head_dim", or_none(SIZE), f"{MIXER}.head_size", None),
            bias=bias,
            pattern=window(c, None),
            position=rotary(c, POSITION, longest),
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        ff = MLP(
            hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
            activation=c.take("hidden_act", ACTIVATIONS, f"{FF}.activation", "gelu_pytorch_tanh"),
            bias=bias,
        )
        residual = Pre(norm=norm, dropout=c.take("residual_dropout", FRACTION, f"{RESIDUAL}.dropout", 0.0))
        block = Block(mixer=mixer, ff=ff, residual=residual)
        head = language(c, name, tied=True)
        dropout = c.take("embedding_dropout", FRACTION, "dropout", 0.0)
        return decoder(c, longest, (block,) * layers(c), norm, head, dropout=dropout)

    def names(self, spec: ModelSpec) -> Names:
        return tensors({**NORMS, **ATTENTION, "mlp.c_fc": "ff.up", "mlp.c_proj": "ff.down"})
