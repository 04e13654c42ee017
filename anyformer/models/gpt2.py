"""GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions; files have its linear maps turned."""

from __future__ import annotations

from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, POSITIVE, SIZE, Config, Kind, one_of, or_none
from anyformer.checkpoints.names import Fused, Names, Rule, sides
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.mlp import MLP
from anyformer.models.base import ModelType
from anyformer.models.head import TIES, language
from anyformer.norms.layer import LayerNorm
from anyformer.positions.learned import Learned
from anyformer.residuals.pre import Pre

# a head that is not read here, and keys of the first files, which nothing reads
OLD_KEYS = (
    "n_ctx",
    "n_special",
    "predict_special_tokens",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
)
ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
MIXER, FF, RESIDUAL = "body.blocks.0.mixer", "body.blocks.0.ff", "body.blocks.0.residual"


def _falls(blocks: Any) -> bool:
    return len(blocks) > 1 and blocks[0]["mixer"]["scale"] != blocks[1]["mixer"]["scale"]


FALLS: Kind[bool] = Kind(FLAG.what, FLAG.read, _falls)  # whether the scale falls with depth, of all blocks


def feedforward(c: Config) -> MLP:
    """Two maps, with a width of their own or four times the stream's between."""
    return MLP(
        hidden=c.take("n_inner", or_none(SIZE), f"{FF}.hidden", None),
        activation=c.take("activation_function", ACTIVATIONS, f"{FF}.activation", "gelu_new"),
    )


def scales(c: Config, count: int, head_size: float) -> list[float | None]:
    """Of the scores of each layer: the usual or none, and perhaps divided by the layer's number, from 1."""
    usual = c.take("scale_attn_weights", one_of({True: None, False: 1.0}), f"{MIXER}.scale", True)
    falls = c.take("scale_attn_by_inverse_layer_idx", FALLS, "body.blocks", False)
    first = head_size**-0.5 if usual is None else usual
    return [usual, *(first / number if falls else usual for number in range(2, count + 1))]


class GPT2(ModelType):
    """GPT-2 (Radford et al. 2019)."""

    classes = ("GPT2LMHeadModel", "GPT2Model", "GPT2ForSequenceClassification")
    prefix = "transformer."
    ties: ClassVar = TIES
    aliases = ALIASES

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore("reorder_and_upcast_attn", *OLD_KEYS)  # the first only says in what order and dtype
        c.expect("add_cross_attention", False, default=False)
        width, heads = c.take("n_embd", SIZE, "width"), c.take("n_head", SIZE, f"{MIXER}.heads")
        norm = LayerNorm(eps=c.take("layer_norm_epsilon", POSITIVE, "body.norm.eps", 1e-5))
        residual = Pre(norm=norm, dropout=c.take("resid_pdrop", FRACTION, f"{RESIDUAL}.dropout", 0.1))
        dropout, ff = c.take("attn_pdrop", FRACTION, f"{MIXER}.dropout", 0.1), feedforward(c)
        blocks = tuple(
            Block(mixer=Softmax(heads=heads, bias=True, scale=scale, dropout=dropout), ff=ff, residual=residual)
            for scale in scales(c, c.count("n_layer", "body.blocks"), width / heads)
        )
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=width,
            position=Learned(length=c.take("n_positions", SIZE, "position.length")),
            dropout=c.take("embd_pdrop", FRACTION, "dropout", 0.1),
            body=Stack(blocks=blocks, norm=norm),
            head=language(c, name, tied=True),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "transformer.h.{i}", "body.blocks.{i}"
        table: dict[str, str | Rule | None] = {
            "transformer.wte.weight": "embedding.weight",
            "transformer.wpe.weight": "position.weight",
            **sides({f"{theirs}.ln_1": f"{ours}.residual.norm.mixer", f"{theirs}.ln_2": f"{ours}.residual.norm.ff"}),
            **sides({"transformer.ln_f": "body.norm"}),
            "lm_head.weight": "head.out.weight",
            f"{theirs}.attn.bias": None,  # the pattern, as a table
            f"{theirs}.attn.masked_bias": None,
        }
        maps = {
            "attn.c_attn": ("mixer.q", "mixer.k", "mixer.v"),
            "attn.c_proj": ("mixer.o",),
            "mlp.c_fc": ("ff.up",),
            "mlp.c_proj": ("ff.down",),
        }
        for map, parts in maps.items():
            for side in ("weight", "bias"):
                table[f"{theirs}.{map}.{side}"] = Fused(tuple(f"{ours}.{part}.{side}" for part in parts), turned=True)
        return table
