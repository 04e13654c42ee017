"""BLOOM (Le Scao et al. 2022): a pre-norm decoder with ALiBi, whose embeddings are normalised."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import FRACTION, POSITIVE, SIZE, Config, one_of, or_none
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.mlp import MLP
from anyformer.models.base import ModelType
from anyformer.models.gpt_neox import by_head, groups_of
from anyformer.models.head import TIES, language
from anyformer.norms.layer import LayerNorm
from anyformer.positions.alibi import ALiBi
from anyformer.residuals.pre import Pre

# how Megatron computed it, which changes no number
OLD_KEYS = (
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
    "offset_alibi",
    "skip_bias_add",
    "skip_bias_add_qkv",
    "unk_token_id",
)
MIXER, RESIDUAL = "body.blocks.0.mixer", "body.blocks.0.residual"


class Bloom(ModelType):
    """BLOOM (Le Scao et al. 2022)."""

    classes = ("BloomForCausalLM", "BloomModel", "BloomForSequenceClassification")
    prefix = "transformer."
    ties: ClassVar = TIES
    aliases: ClassVar = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "n_embed": "hidden_size"}

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore(*OLD_KEYS)
        c.expect("apply_residual_connection_post_layernorm", False, default=False)
        c.expect("slow_but_exact", False, default=False)  # true leaves out two biases
        width = c.take("hidden_size", SIZE, "width")
        c.given("n_inner", one_of({None: None, 4 * width: None}), None)
        norm = LayerNorm(eps=c.take("layer_norm_epsilon", POSITIVE, "norm.eps", 1e-5))
        mixer = Softmax(
            heads=c.take("n_head", SIZE, f"{MIXER}.heads"),
            position=ALiBi(),
            bias=True,
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        residual = Pre(norm=norm, dropout=c.take("hidden_dropout", FRACTION, f"{RESIDUAL}.dropout", 0.0))
        block = Block(mixer=mixer, ff=MLP(activation="gelu_tanh"), residual=residual)
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=width,
            norm=norm,
            context=c.take("seq_length", or_none(SIZE), "context", None),
            body=Stack(blocks=(block,) * c.count("n_layer", "body.blocks"), norm=norm),
            head=language(c, name, tied=True),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "transformer.h.{i}", "body.blocks.{i}"
        maps = sides(
            {
                f"{theirs}.input_layernorm": f"{ours}.residual.norm.mixer",
                f"{theirs}.self_attention.dense": f"{ours}.mixer.o",
                f"{theirs}.post_attention_layernorm": f"{ours}.residual.norm.ff",
                f"{theirs}.mlp.dense_h_to_4h": f"{ours}.ff.up",
                f"{theirs}.mlp.dense_4h_to_h": f"{ours}.ff.down",
                "transformer.word_embeddings_layernorm": "norm",
                "transformer.ln_f": "body.norm",
            }
        )
        return {
            "transformer.word_embeddings.weight": "embedding.weight",
            **by_head(f"{theirs}.self_attention.query_key_value", groups_of(spec)),
            **maps,
            "lm_head.weight": "head.out.weight",
        }
