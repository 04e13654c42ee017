"""GPT-NeoX (Black et al. 2022) and Pythia: mixer and feed-forward read the same stream through norms of their own."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.parallel import Parallel
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, POSITIVE, SIZE, Config, one_of
from anyformer.checkpoints.names import ByHead, Names, sides
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.mlp import MLP
from anyformer.models.base import ModelType
from anyformer.models.head import language
from anyformer.models.rope import scaling, share_of
from anyformer.norms.layer import LayerNorm
from anyformer.positions.rotary import Rotary
from anyformer.residuals.pre import Pre

MIXER, FF, RESIDUAL = "body.blocks.0.mixer", "body.blocks.0.ff", "body.blocks.0.residual"
SIDE_BY_SIDE = one_of({True: "parallel", False: "block"})


class GPTNeoX(ModelType):
    """GPT-NeoX (Black et al. 2022)."""

    classes = ("GPTNeoXForCausalLM", "GPTNeoXModel", "GPTNeoXForSequenceClassification")
    prefix = "gpt_neox."
    ties: ClassVar = {"embed_out.weight": "embedding.weight"}
    renamed: ClassVar = {"lm_head.weight": "embed_out.weight"}
    aliases: ClassVar = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore("attention_probs_dropout_prob", "hidden_dropout_prob")  # another type's names for its dropouts
        width, heads = c.take("hidden_size", SIZE, "width"), c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
        context = c.take("max_position_embeddings", SIZE, "context", 2048)
        dropout = c.take("hidden_dropout", FRACTION, "dropout", 0.0)
        norm = LayerNorm(eps=c.take("layer_norm_eps", POSITIVE, "body.norm.eps", 1e-5))
        position = Rotary(
            theta=c.take("rotary_emb_base", POSITIVE, f"{MIXER}.position.theta", 10_000.0),
            channels=c.take("rotary_pct", share_of(width // heads), f"{MIXER}.position.channels", 0.25),
            scaling=scaling(c, f"{MIXER}.position.scaling", context),
        )
        mixer = Softmax(
            heads=heads,
            position=position,
            bias=c.take("attention_bias", FLAG, f"{MIXER}.bias", True),
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        ff = MLP(
            hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
            activation=c.take("hidden_act", ACTIVATIONS, f"{FF}.activation", "gelu"),
        )
        residual = Pre(norm=norm, dropout=dropout)
        if c.take("use_parallel_residual", SIDE_BY_SIDE, "body.blocks.0.kind", True) == "parallel":
            block = Parallel(mixer=mixer, ff=ff, residual=residual, shared=False)
        else:
            block = Block(mixer=mixer, ff=ff, residual=residual)
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=width,
            dropout=dropout,
            context=context,
            body=Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=norm),
            head=language(c, name, tied=False),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "gpt_neox.layers.{i}", "body.blocks.{i}"
        maps = sides(
            {
                f"{theirs}.input_layernorm": f"{ours}.residual.norm.mixer",
                f"{theirs}.post_attention_layernorm": f"{ours}.residual.norm.ff",
                f"{theirs}.attention.dense": f"{ours}.mixer.o",
                f"{theirs}.mlp.dense_h_to_4h": f"{ours}.ff.up",
                f"{theirs}.mlp.dense_4h_to_h": f"{ours}.ff.down",
                "gpt_neox.final_layer_norm": "body.norm",
            }
        )
        return {
            "gpt_neox.embed_in.weight": "embedding.weight",
            **by_head(f"{theirs}.attention.query_key_value", groups_of(spec)),
            **maps,
            "embed_out.weight": "head.out.weight",
            f"{theirs}.attention.bias": None,  # the pattern, as a table
            f"{theirs}.attention.masked_bias": None,
            f"{theirs}.attention.rotary_emb.inv_freq": None,
        }


def groups_of(spec: ModelSpec) -> int:
    """The key-value heads of each layer."""
    assert isinstance(spec, Decoder) and isinstance(spec.body, Stack)
    block = spec.body.blocks[0]
    assert isinstance(block, Block | Parallel) and isinstance(block.mixer, Softmax)
    return block.mixer.kv_heads or block.mixer.heads


def by_head(theirs: str, groups: int) -> dict[str, ByHead]:
    """Queries, keys and values of a layer as one map, the groups of heads one after the other."""
    ours = "body.blocks.{i}.mixer"
    return {
        f"{theirs}.{side}": ByHead(tuple(f"{ours}.{part}.{side}" for part in "qkv"), groups)
        for side in ("weight", "bias")
    }
