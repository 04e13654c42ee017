"""Falcon (Almazrouei et al. 2023): three forms of a decoder, by which heads share keys and what stands side by side.

40B and its kin share keys by groups, with one norm or two; 7B has one key for all heads and one norm for both parts;
the first ones (RefinedWeb) have their parts in turn and ALiBi.
"""

from __future__ import annotations

from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.parallel import Parallel
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import (
    ACTIVATIONS,
    FLAG,
    FRACTION,
    POSITIVE,
    SIZE,
    Config,
    Kind,
    one_of,
    or_none,
)
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import ModelSpec, PositionSpec
from anyformer.feedforward.mlp import MLP
from anyformer.models.base import ModelType
from anyformer.models.gpt_neox import by_head, groups_of
from anyformer.models.head import TIES, language
from anyformer.models.rope import rotary
from anyformer.norms.layer import LayerNorm
from anyformer.positions.alibi_rounded import RoundedALiBi
from anyformer.residuals.pre import Pre

BLOCK = "body.blocks.0"
MIXER, FF, RESIDUAL = f"{BLOCK}.mixer", f"{BLOCK}.ff", f"{BLOCK}.residual"
POSITIONS = one_of({False: "rotary", True: "alibi_rounded"})
SIDE_BY_SIDE = one_of({True: "parallel", False: "block"})
ONE_KEY = one_of({True: 1, False: None})
ONE_NORM = one_of({2: False, 1: True, None: False})


def _grouped(block: Any) -> bool:
    return block["kind"] == "parallel" and (not block["shared"] or block["mixer"]["kv_heads"] not in (1, None))


GROUPED: Kind[bool] = Kind(FLAG.what, FLAG.read, _grouped)  # of a block


def groups(heads: int) -> Kind[int | None]:
    """Key-value heads; None: as many as there are heads."""

    def read(value: Any) -> int | None:
        count = or_none(SIZE).read(value)
        return None if count == heads else count

    return Kind(or_none(SIZE).what, read, lambda count: heads if count is None else count)


class Falcon(ModelType):
    """Falcon (Almazrouei et al. 2023)."""

    classes = ("FalconForCausalLM", "FalconModel", "FalconForSequenceClassification")
    prefix = "transformer."
    ties: ClassVar = TIES
    aliases: ClassVar = {"n_embed": "hidden_size"}

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore("apply_residual_connection_post_layernorm")  # which nothing reads
        c.said({"ff_factor": 4})
        width, heads = c.take("hidden_size", SIZE, "width"), c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
        context = c.take("max_position_embeddings", SIZE, "context", 2048)
        bias = c.take("bias", FLAG, f"{FF}.bias", False)
        kv_heads, parallel, shared = form(c, heads)
        mixer = Softmax(
            heads=heads,
            kv_heads=kv_heads,
            position=position(c, context, width / heads),
            bias=bias,
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        ff = MLP(
            hidden=c.take("ffn_hidden_size", or_none(SIZE), f"{FF}.hidden", None),
            activation=c.take("activation", ACTIVATIONS, f"{FF}.activation", "gelu"),
            bias=bias,
        )
        norm = LayerNorm(eps=c.take("layer_norm_epsilon", POSITIVE, "body.norm.eps", 1e-5))
        residual = Pre(norm=norm, dropout=c.take("hidden_dropout", FRACTION, f"{RESIDUAL}.dropout", 0.0))
        if parallel:
            block = Parallel(mixer=mixer, ff=ff, residual=residual, shared=shared)
        else:
            block = Block(mixer=mixer, ff=ff, residual=residual)
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=width,
            context=context,
            body=Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=norm),
            head=language(c, name, tied=True),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "transformer.h.{i}", "body.blocks.{i}"
        assert isinstance(spec, Decoder) and isinstance(spec.body, Stack)
        both = isinstance(spec.body.blocks[0], Parallel) and spec.body.blocks[0].shared
        norms = (
            {"input_layernorm": "both"}
            if both
            else {"ln_attn": "mixer", "ln_mlp": "ff"}
            if isinstance(spec.body.blocks[0], Parallel)
            else {"input_layernorm": "mixer", "post_attention_layernorm": "ff"}
        )
        maps = sides(
            {
                **{f"{theirs}.{norm}": f"{ours}.residual.norm.{part}" for norm, part in norms.items()},
                f"{theirs}.self_attention.dense": f"{ours}.mixer.o",
                f"{theirs}.mlp.dense_h_to_4h": f"{ours}.ff.up",
                f"{theirs}.mlp.dense_4h_to_h": f"{ours}.ff.down",
                "transformer.ln_f": "body.norm",
            }
        )
        return {
            "transformer.word_embeddings.weight": "embedding.weight",
            **by_head(f"{theirs}.self_attention.query_key_value", groups_of(spec)),
            **maps,
            "lm_head.weight": "head.out.weight",
        }


def form(c: Config, heads: int) -> tuple[int | None, bool, bool]:
    """Key-value heads, whether the parts stand side by side, and whether they share a norm."""
    if c.take("new_decoder_architecture", GROUPED, BLOCK, False):
        c.ignore("multi_query")
        c.expect("parallel_attn", True, default=True)
        kv_heads = c.take("num_kv_heads", groups(heads), f"{MIXER}.kv_heads", None)
        return kv_heads, True, c.take("num_ln_in_parallel_attn", ONE_NORM, f"{BLOCK}.shared", None)
    c.ignore("num_kv_heads", "num_ln_in_parallel_attn")
    kv_heads = c.take("multi_query", ONE_KEY, f"{MIXER}.kv_heads", True)
    return kv_heads, c.take("parallel_attn", SIDE_BY_SIDE, f"{BLOCK}.kind", True) == "parallel", True


def position(c: Config, context: int, head_size: float) -> PositionSpec:
    """All channels turn, or scores grow with the position."""
    if c.take("alibi", POSITIONS, f"{MIXER}.position.kind", False) == "rotary":
        return rotary(c, f"{MIXER}.position", context)
    c.ignore("rope_theta", "rope_scaling")
    return RoundedALiBi(scale=head_size**-0.5)
