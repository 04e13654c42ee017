"""BART (Lewis et al. 2020): a post-norm encoder and decoder with learned positions that begin at row 2.

What its kin share with it stands here as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import ClassVar

from anyformer.architectures.encoder_decoder import EncoderDecoder
from anyformer.attention.cross import Cross
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FRACTION, SIZE, Config, one_of
from anyformer.checkpoints.names import Names, Rule, Shaped, sides
from anyformer.core.spec import HeadSpec, ModelSpec, NormSpec, ResidualSpec
from anyformer.embeddings.tokens import Tokens
from anyformer.feedforward.mlp import MLP
from anyformer.heads.tied import Tied
from anyformer.models.base import ModelType
from anyformer.norms.layer import LayerNorm
from anyformer.norms.nothing import NoNorm
from anyformer.patterns.causal import Causal
from anyformer.patterns.full import Full
from anyformer.positions.learned import Learned
from anyformer.residuals.post import Post

TIES = {
    "lm_head.weight": "embedding.weight",
    "model.encoder.embed_tokens.weight": "embedding.weight",
    "model.decoder.embed_tokens.weight": "embedding.weight",
}

# keys that nothing reads
OLD_KEYS = (
    "classif_dropout",
    "extra_pos_embeddings",
    "force_bos_token_to_be_generated",
    "init_std",
    "num_hidden_layers",
    "replacing_rate",
    "save_step",
    "student_decoder_layers",
    "student_encoder_layers",
)


def form(*, pre: bool, static: bool, normalised: bool) -> dict[str, bool]:
    """What files of the first years say of the form of a type, which is one form today.

    pre: norms in front of the parts. static: positions are waves. normalised: so is what enters.
    """
    return {
        "add_bias_logits": False,
        "add_final_layer_norm": pre,
        "do_blenderbot_90_layernorm": False,
        "normalize_before": pre,
        "normalize_embedding": normalised,
        "static_position_embeddings": static,
    }


def dropout(c: Config, usual: float = 0.1) -> float:
    """Of the stream. usual: where the config does not say it."""
    return c.take("dropout", FRACTION, "dropout", usual)


def stack(c: Config, at: str, residual: ResidualSpec, norm: NormSpec, *, k_bias: bool | None = None) -> Stack:
    """One side. at: encoder or decoder, in the config as here. norm: the last one.

    k_bias: where it is not as that of q and v.
    """
    first = f"{at}.blocks.0"
    c.expect(f"{at}_layerdrop", 0.0, 0, default=0.0)
    heads = c.take(f"{at}_attention_heads", SIZE, f"{first}.mixer.heads")
    lost = c.take("attention_dropout", FRACTION, f"{first}.mixer.dropout", 0.0)
    decoder = at == "decoder"
    pattern = Causal() if decoder else Full()
    ff = MLP(
        hidden=c.take(f"{at}_ffn_dim", SIZE, f"{first}.ff.hidden"),
        activation=c.take("activation_function", ACTIVATIONS, f"{first}.ff.activation", "gelu"),
        dropout=c.take("activation_dropout", FRACTION, f"{first}.ff.dropout", 0.0),
    )
    block = Block(
        mixer=Softmax(heads=heads, pattern=pattern, bias=True, k_bias=k_bias, dropout=lost),
        cross=Cross(heads=heads, bias=True, k_bias=k_bias, dropout=lost) if decoder else None,
        ff=ff,
        residual=residual,
    )
    return Stack(blocks=(block,) * c.count(f"{at}_layers", f"{at}.blocks"), norm=norm)


def words(c: Config, width: int) -> Tokens:
    """The embedding, which may be scaled."""
    return Tokens(scale=c.take("scale_embedding", one_of({False: 1.0, True: sqrt(width)}), "embedding.scale", False))


def tied(c: Config, *, bare: bool) -> HeadSpec | None:
    """The embedding read backwards, with a bias. bare: a model without a head."""
    c.expect("tie_word_embeddings", True, default=True)
    return None if bare else Tied(bias=True)


def logits_bias(spec: ModelSpec) -> dict[str, Rule]:
    """The head's bias, which files have as a row."""
    return {"final_logits_bias": Shaped(("head.bias",), (1, spec.vocabulary or 0))}


def layers(at: str) -> dict[str, str]:
    """The tensors of one side's blocks and of its last norm. at: encoder or decoder, in files as here."""
    parts = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}
    within = {
        **{f"self_attn.{theirs}": f"mixer.{ours}" for theirs, ours in parts.items()},
        **{f"encoder_attn.{theirs}": f"cross.{ours}" for theirs, ours in parts.items()},
        "self_attn_layer_norm": "residual.norm.mixer",
        "encoder_attn_layer_norm": "residual.norm.cross",
        "final_layer_norm": "residual.norm.ff",
        "fc1": "ff.up",
        "fc2": "ff.down",
    }
    named = {f"model.{at}.layers.{{i}}.{theirs}": f"{at}.blocks.{{i}}.{ours}" for theirs, ours in within.items()}
    return sides({**named, f"model.{at}.layer_norm": f"{at}.norm"})


def tensors(ends: Mapping[str, str]) -> dict[str, str | Rule | None]:
    """Both sides and the positions. ends: what else there is."""
    return {
        **ends,
        "model.encoder.embed_positions.weight": "source_position.weight",
        "model.decoder.embed_positions.weight": "position.weight",
        **layers("encoder"),
        **layers("decoder"),
        "model.encoder.version": None,
        "model.decoder.version": None,
    }


class Bart(ModelType):
    """BART (Lewis et al. 2020)."""

    classes = ("BartForConditionalGeneration", "BartModel")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> EncoderDecoder:
        c.ignore(*OLD_KEYS)
        c.said(form(pre=False, static=False, normalised=True))
        width, lost = c.take("d_model", SIZE, "width"), dropout(c)
        position = Learned(length=c.take("max_position_embeddings", SIZE, "position.length", 1024), first=2)
        residual = Post(dropout=lost)
        return EncoderDecoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=width,
            embedding=words(c, width),
            position=position,
            norm=LayerNorm(),
            dropout=lost,
            source_position=position,
            source_norm=LayerNorm(),
            encoder=stack(c, "encoder", residual, NoNorm()),
            decoder=stack(c, "decoder", residual, NoNorm()),
            head=tied(c, bare=name == "BartModel"),
        )

    def names(self, spec: ModelSpec) -> Names:
        norms = {"model.encoder.layernorm_embedding": "source_norm", "model.decoder.layernorm_embedding": "norm"}
        return {**tensors({"model.shared.weight": "embedding.weight", **sides(norms)}), **logits_bias(spec)}
