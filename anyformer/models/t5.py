"""T5 (Raffel et al. 2020): a pre-norm encoder and decoder with a learned bias per head and distance; scores unscaled.

The first files have ReLU and logits from the embedding, scaled; version 1.1 and Flan a gate and logits of their own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.architectures.encoder_decoder import EncoderDecoder
from anyformer.attention.cross import Cross
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FRACTION, POSITIVE, SIZE, Config, one_of
from anyformer.checkpoints.names import Names
from anyformer.core.spec import HeadSpec, ModelSpec, Ref
from anyformer.feedforward.gated import Gated
from anyformer.feedforward.mlp import MLP
from anyformer.heads.language import Language
from anyformer.heads.tied import Tied
from anyformer.models.base import ModelType
from anyformer.norms.rms import RMSNorm
from anyformer.patterns.full import Full
from anyformer.positions.t5 import T5
from anyformer.residuals.pre import Pre

# by `feed_forward_proj`, where gelu with a gate is another gelu
PLAIN = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_new", "silu": "silu"}
GATES = {"gated-gelu": "gelu_new", "gated-silu": "silu", "gated-relu": "relu", "gated-gelu_new": "gelu_new"}


def feedforward(c: Config, at: str) -> MLP | Gated:
    """Without biases; what the config says twice has to agree."""
    hidden = c.take("d_ff", SIZE, f"{at}.hidden")
    dropout = c.take("dropout_rate", FRACTION, f"{at}.dropout", 0.1)
    names = {
        **{
            key: MLP(hidden=hidden, activation=ACTIVATIONS.read(name), bias=False, dropout=dropout)
            for key, name in PLAIN.items()
        },
        **{
            key: Gated(hidden=hidden, activation=ACTIVATIONS.read(name), dropout=dropout) for key, name in GATES.items()
        },
    }
    ff = c.take("feed_forward_proj", one_of(names), at, "relu")
    name = ACTIVATIONS.write(ff.activation)
    c.expect("dense_act_fn", name, default=name)
    c.expect("is_gated_act", isinstance(ff, Gated), default=isinstance(ff, Gated))
    return ff


def stack(c: Config, at: str, layers: int, *, decoder: bool) -> Stack:
    """The blocks of one side, which share the bias of the first. at: where they stand."""
    first = f"{at}.blocks.0"
    norm = RMSNorm(eps=c.take("layer_norm_epsilon", POSITIVE, f"{at}.norm.eps", 1e-6))
    heads, size = c.take("num_heads", SIZE, f"{first}.mixer.heads"), c.take("d_kv", SIZE, f"{first}.mixer.head_size")
    position = T5(
        buckets=c.take("relative_attention_num_buckets", SIZE, f"{first}.mixer.position.buckets", 32),
        furthest=c.take("relative_attention_max_distance", SIZE, f"{first}.mixer.position.furthest", 128),
        both_ways=not decoder,
    )
    ff = feedforward(c, f"{first}.ff")
    mixer = Softmax(heads=heads, head_size=size, position=position, scale=1.0, dropout=ff.dropout)
    cross = Cross(heads=heads, head_size=size, scale=1.0, dropout=ff.dropout) if decoder else None
    mixer = mixer if decoder else replace(mixer, pattern=Full())
    block = Block(mixer=mixer, cross=cross, ff=ff, residual=Pre(norm=norm, dropout=ff.dropout))
    other = replace(block, mixer=replace(mixer, position=Ref(f"{first}.mixer.position")))
    return Stack(blocks=(block,) + (other,) * (layers - 1), norm=norm)


def head(c: Config, width: int) -> HeadSpec:
    """Scaled and tied, or neither.

    Files of today always say that it is tied; where it is not, they hold its weights.
    """
    kind = c.take("tie_word_embeddings", one_of({True: "tied", False: "language"}), "head.kind", True)
    scale = c.take("scale_decoder_outputs", one_of({True: width**-0.5, False: 1.0}), "head.scale", kind == "tied")
    kind = c.kind("head") or ("language" if scale == 1 else "tied")
    return Tied(scale=scale) if kind == "tied" else Language(scale=scale)


def side(theirs: str, ours: str, *, decoder: bool, gated: bool) -> dict[str, str]:
    """The tensors of one side."""
    ff = 2 if decoder else 1
    parts = {
        **{f"layer.0.SelfAttention.{part}": f"mixer.{part}" for part in "qkvo"},
        "layer.0.layer_norm": "residual.norm.mixer",
        **{f"layer.1.EncDecAttention.{part}": f"cross.{part}" for part in "qkvo" if decoder},
        **({"layer.1.layer_norm": "residual.norm.cross"} if decoder else {}),
        **({"wi_0": "ff.gate", "wi_1": "ff.up"} if gated else {"wi": "ff.up"}),
        "wo": "ff.down",
        f"layer.{ff}.layer_norm": "residual.norm.ff",
    }
    named = {f"layer.{ff}.DenseReluDense.{name}" if name[0] == "w" else name: part for name, part in parts.items()}
    return {
        f"{theirs}.final_layer_norm.weight": f"{ours}.norm.weight",
        f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
            f"{ours}.blocks.0.mixer.position.weight"
        ),
        **{f"{theirs}.block.{{i}}.{name}.weight": f"{ours}.blocks.{{i}}.{part}.weight" for name, part in named.items()},
    }


def has_gate(body: object) -> bool:
    """Whether the feed-forwards of a stack have one."""
    assert isinstance(body, Stack)
    assert isinstance(body.blocks[0], Block)
    return isinstance(body.blocks[0].ff, Gated)


class T5Type(ModelType):
    """T5 (Raffel et al. 2020), version 1.1 and Flan-T5."""

    classes = ("T5ForConditionalGeneration", "T5Model", "T5EncoderModel")
    older_classes: ClassVar = {"T5WithLMHeadModel": "T5ForConditionalGeneration"}
    ties: ClassVar = {
        "lm_head.weight": "embedding.weight",
        "encoder.embed_tokens.weight": "embedding.weight",
        "decoder.embed_tokens.weight": "embedding.weight",
    }

    def declare(self, c: Config, name: str) -> ModelSpec:
        c.ignore("n_positions")  # which nothing reads
        width, vocabulary = c.take("d_model", SIZE, "width"), c.take("vocab_size", SIZE, "vocabulary")
        dropout = c.take("dropout_rate", FRACTION, "dropout", 0.1)
        if name == "T5EncoderModel":
            c.ignore("num_decoder_layers", "tie_word_embeddings", "scale_decoder_outputs")
            body = stack(c, "body", c.count("num_layers", "body.blocks"), decoder=False)
            return Encoder(vocabulary=vocabulary, width=width, dropout=dropout, body=body)
        layers = c.count("num_layers", "encoder.blocks")
        if bare := name == "T5Model":
            c.ignore("tie_word_embeddings", "scale_decoder_outputs")
        return EncoderDecoder(
            vocabulary=vocabulary,
            width=width,
            dropout=dropout,
            encoder=stack(c, "encoder", layers, decoder=False),
            decoder=stack(c, "decoder", c.count("num_decoder_layers", "decoder.blocks", layers), decoder=True),
            head=None if bare else head(c, width),
        )

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        unscaled = isinstance(spec, EncoderDecoder) and isinstance(spec.head, Language)
        return replace(spec, head=Tied()) if unscaled and "lm_head.weight" not in tensors else spec

    def names(self, spec: ModelSpec) -> Names:
        ends = {"shared.weight": "embedding.weight", "lm_head.weight": "head.out.weight"}
        if isinstance(spec, Encoder):
            return {**ends, **side("encoder", "body", decoder=False, gated=has_gate(spec.body))}
        assert isinstance(spec, EncoderDecoder)
        return {
            **ends,
            **side("encoder", "encoder", decoder=False, gated=has_gate(spec.encoder)),
            **side("decoder", "decoder", decoder=True, gated=has_gate(spec.decoder)),
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": None,  # of the first files
        }
