"""GPT-Neo (Black et al. 2021): GPT-2 with unscaled scores, in which every second layer looks back a window only."""

from __future__ import annotations

from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FRACTION, POSITIVE, SIZE, Config, Kind, one_of, or_none, several
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.mlp import MLP
from anyformer.models.base import ModelType
from anyformer.models.gpt2 import OLD_KEYS
from anyformer.models.grouped import WINDOW, window_of
from anyformer.models.head import TIES, language
from anyformer.norms.layer import LayerNorm
from anyformer.patterns.base import Pattern
from anyformer.patterns.causal import Causal
from anyformer.positions.learned import Learned
from anyformer.residuals.pre import Pre

MIXER, FF, RESIDUAL = "body.blocks.0.mixer", "body.blocks.0.ff", "body.blocks.0.residual"
USUAL = [[["global", "local"], 12]]
REACH: Kind[str] = one_of({"global": "global", "local": "local"})


def _reaches(value: Any) -> tuple[str, ...]:
    layers: list[str] = []
    for names, times in value:
        if not 1 <= SIZE.read(times) <= 10_000:
            raise ValueError
        layers.extend(several(REACH).read(names) * times)
    return tuple(layers)


def _reach(pattern: str) -> str:
    if pattern == str(Causal()):
        return "global"
    window_of(pattern)
    return "local"


def _listed(blocks: Any) -> list[Any]:
    return [[[_reach(block["mixer"]["pattern"]) for block in blocks], 1]]


# of all blocks
REACHES: Kind[tuple[str, ...]] = Kind(
    "a list of [list of 'global' and 'local', how often]",
    _reaches,
    _listed,
)


def window(c: Config, reaches: tuple[str, ...]) -> Pattern:
    """What a local layer sees."""
    if "local" not in reaches:
        c.ignore("window_size")
        return Causal()
    return c.take("window_size", WINDOW, f"body.blocks.{reaches.index('local')}.mixer.pattern", 256)


class GPTNeo(ModelType):
    """GPT-Neo (Black et al. 2021)."""

    classes = ("GPTNeoForCausalLM", "GPTNeoModel", "GPTNeoForSequenceClassification")
    prefix = "transformer."
    ties: ClassVar = TIES
    aliases: ClassVar = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore(*OLD_KEYS)
        reaches, count = c.take("attention_types", REACHES, "body.blocks", USUAL), c.count("num_layers", "body.blocks")
        if len(reaches) != count or c.given("attention_layers", several(REACH), reaches) != reaches:
            raise ValueError(f"attention_types says {', '.join(reaches)}, which num_layers or attention_layers denies")
        patterns = {"global": Causal(), "local": window(c, reaches)}
        heads = c.take("num_heads", SIZE, f"{MIXER}.heads")
        dropout = c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0)
        ff = MLP(
            hidden=c.take("intermediate_size", or_none(SIZE), f"{FF}.hidden", None),
            activation=c.take("activation_function", ACTIVATIONS, f"{FF}.activation", "gelu_new"),
        )
        norm = LayerNorm(eps=c.take("layer_norm_epsilon", POSITIVE, "body.norm.eps", 1e-5))
        residual = Pre(norm=norm, dropout=c.take("resid_dropout", FRACTION, f"{RESIDUAL}.dropout", 0.0))
        blocks = tuple(
            Block(
                mixer=Softmax(heads=heads, pattern=patterns[reach], out_bias=True, scale=1.0, dropout=dropout),
                ff=ff,
                residual=residual,
            )
            for reach in reaches
        )
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=c.take("hidden_size", SIZE, "width"),
            position=Learned(length=c.take("max_position_embeddings", SIZE, "position.length", 2048)),
            dropout=c.take("embed_dropout", FRACTION, "dropout", 0.0),
            body=Stack(blocks=blocks, norm=norm),
            head=language(c, name, tied=True),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "transformer.h.{i}", "body.blocks.{i}"
        attention = f"{theirs}.attn.attention"
        maps = sides(
            {
                f"{theirs}.ln_1": f"{ours}.residual.norm.mixer",
                f"{attention}.q_proj": f"{ours}.mixer.q",
                f"{attention}.k_proj": f"{ours}.mixer.k",
                f"{attention}.v_proj": f"{ours}.mixer.v",
                f"{attention}.out_proj": f"{ours}.mixer.o",
                f"{theirs}.ln_2": f"{ours}.residual.norm.ff",
                f"{theirs}.mlp.c_fc": f"{ours}.ff.up",
                f"{theirs}.mlp.c_proj": f"{ours}.ff.down",
                "transformer.ln_f": "body.norm",
            }
        )
        return {
            "transformer.wte.weight": "embedding.weight",
            "transformer.wpe.weight": "position.weight",
            **maps,
            "lm_head.weight": "head.out.weight",
            f"{attention}.bias": None,  # the pattern, as a table
            f"{attention}.masked_bias": None,
        }
