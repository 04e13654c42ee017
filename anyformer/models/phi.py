"""Phi (Li et al. 2023): attention and an MLP side by side behind one LayerNorm, biases everywhere, partial rotation."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.parallel import Parallel
from anyformer.checkpoints.config import ACTIVATIONS, FRACTION, POSITIVE, SIZE, Config, one_of, or_none
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.mlp import MLP
from anyformer.heads.tied import Tied
from anyformer.models.base import ModelType
from anyformer.models.head import TIES, language
from anyformer.models.llama import (
    ATTENTION,
    ENDS,
    FF,
    MIXER,
    POSITION,
    RESIDUAL,
    context,
    decoder,
    layers,
    tensors,
)
from anyformer.models.rope import partial_rotary
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.pre import Pre


class Phi(ModelType):
    """Phi, attention and an MLP side by side (Li et al. 2023)."""

    classes = ("PhiForCausalLM", "PhiModel", "PhiForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        longest, width = context(c, 2048), c.take("hidden_size", SIZE, "width")
        norm = LayerNorm(eps=c.take("layer_norm_eps", POSITIVE, "body.norm.eps", 1e-5))
        heads = c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
        mixer = Softmax(
            heads=heads,
            kv_heads=c.take("num_key_value_heads", or_none(SIZE), f"{MIXER}.kv_heads", None),
            bias=True,
            position=partial_rotary(c, POSITION, longest, width // heads, 0.5),
            qk_norm=c.take("qk_layernorm", one_of({False: None, True: norm}), f"{MIXER}.qk_norm", False),
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        ff = MLP(
            hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
            activation=c.take("hidden_act", ACTIVATIONS, f"{FF}.activation", "gelu_new"),
        )
        residual = Pre(norm=norm, dropout=c.take("resid_pdrop", FRACTION, f"{RESIDUAL}.dropout", 0.0))
        block = Parallel(mixer=mixer, ff=ff, residual=residual)
        head = language(c, name, tied=False, bias=True)
        dropout = c.take("embd_pdrop", FRACTION, "dropout", 0.0)
        return decoder(c, longest, (block,) * layers(c), norm, head, dropout=dropout)

    def names(self, spec: ModelSpec) -> Names:
        layer = {
            **ATTENTION,
            "input_layernorm": "residual.norm.both",
            "self_attn.dense": "mixer.o",
            "self_attn.q_layernorm": "mixer.q_norm",
            "self_attn.k_layernorm": "mixer.k_norm",
            "mlp.fc1": "ff.up",
            "mlp.fc2": "ff.down",
        }
        del layer["self_attn.o_proj"]
        ends = {**ENDS, "model.final_layernorm": "body.norm"}
        del ends["model.norm"]
        assert isinstance(spec, Decoder)
        bias = "head.bias" if isinstance(spec.head, Tied) else "head.out.bias"
        return {**tensors(layer, ends), "lm_head.bias": bias}
