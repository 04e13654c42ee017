"""OPT (Zhang et al. 2022): a decoder with learned positions and ReLU; its 350m is post-norm, with narrow embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, SIZE, Config, Kind, one_of, or_none
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import HeadSpec, ModelSpec, Ref
from anyformer.embeddings.factorised import Factorised
from anyformer.embeddings.tokens import Tokens
from anyformer.feedforward.mlp import MLP
from anyformer.heads.language import Language
from anyformer.heads.masked import Masked
from anyformer.heads.tied import Tied
from anyformer.models.base import ModelType
from anyformer.models.head import TIES, language, speaks
from anyformer.norms.layer import LayerNorm
from anyformer.norms.nothing import NoNorm
from anyformer.positions.learned import Learned
from anyformer.residuals.post import Post
from anyformer.residuals.pre import Pre

# of training alone, and keys that nothing reads
OLD_KEYS = ("activation_dropout", "init_std", "learned_embeddings", "scale_embeddings")
MIXER, FF, RESIDUAL = "body.blocks.0.mixer", "body.blocks.0.ff", "body.blocks.0.residual"
ORDERS = one_of({True: "pre", False: "post"})
NARROW_HEADS = one_of({True: Tied(table=Ref("embedding.inner")), False: Language()})


def embedding(width: int) -> Kind[Tokens | Factorised]:
    """By the width of its vectors, which is the stream's, or is widened."""

    def read(value: Any) -> Tokens | Factorised:
        return Tokens() if value is None or SIZE.read(value) == width else Factorised(size=value)

    def write(embedding: Any) -> int:
        return {"tokens": lambda: width, "factorised": lambda: embedding["size"]}[embedding["kind"]]()

    return Kind(or_none(SIZE).what, read, write)


class OPT(ModelType):
    """OPT (Zhang et al. 2022)."""

    classes = ("OPTForCausalLM", "OPTModel", "OPTForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore(*OLD_KEYS)
        c.expect("layerdrop", 0.0, 0, default=0.0)
        width = c.take("hidden_size", SIZE, "width")
        bias = c.take("enable_bias", FLAG, f"{MIXER}.bias", True)
        mixer = Softmax(
            heads=c.take("num_attention_heads", SIZE, f"{MIXER}.heads"),
            bias=bias,
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        ff = MLP(
            hidden=c.take("ffn_dim", SIZE, f"{FF}.hidden"),
            activation=c.take("activation_function", ACTIVATIONS, f"{FF}.activation", "relu"),
            bias=bias,
        )
        learned = c.take("layer_norm_elementwise_affine", FLAG, f"{RESIDUAL}.norm.gain", True)
        norm = LayerNorm(gain=learned, bias=learned)
        dropout = c.take("dropout", FRACTION, f"{RESIDUAL}.dropout", 0.1)
        if c.take("do_layer_norm_before", ORDERS, f"{RESIDUAL}.kind", True) == "pre":
            residual = Pre(norm=norm, dropout=dropout)
            last = c.take("_remove_final_layer_norm", one_of({False: norm, True: NoNorm()}), "body.norm", False)
        else:
            c.ignore("_remove_final_layer_norm")
            residual, last = Post(norm=norm, dropout=dropout), NoNorm()
        block = Block(mixer=mixer, ff=ff, residual=residual)
        words = c.take("word_embed_proj_dim", embedding(width), "embedding", None)
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=width,
            embedding=words,
            position=Learned(length=c.take("max_position_embeddings", SIZE, "position.length", 2048), first=2),
            body=Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=last),
            head=head(c, words, name),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "model.decoder.layers.{i}", "body.blocks.{i}"
        maps = sides(
            {
                f"{theirs}.self_attn.q_proj": f"{ours}.mixer.q",
                f"{theirs}.self_attn.k_proj": f"{ours}.mixer.k",
                f"{theirs}.self_attn.v_proj": f"{ours}.mixer.v",
                f"{theirs}.self_attn.out_proj": f"{ours}.mixer.o",
                f"{theirs}.self_attn_layer_norm": f"{ours}.residual.norm.mixer",
                f"{theirs}.fc1": f"{ours}.ff.up",
                f"{theirs}.fc2": f"{ours}.ff.down",
                f"{theirs}.final_layer_norm": f"{ours}.residual.norm.ff",
                "model.decoder.final_layer_norm": "body.norm",
            }
        )
        assert isinstance(spec, Decoder)
        narrow, words = isinstance(spec.embedding, Factorised), "head.out.weight"
        if isinstance(spec.head, Masked):  # some files have tied words twice
            words = None if isinstance(spec.head.decoder, Tied) else "head.decoder.out.weight"
        return {
            "model.decoder.embed_tokens.weight": "embedding.inner.weight" if narrow else "embedding.weight",
            "model.decoder.embed_positions.weight": "position.weight",
            "model.decoder.project_in.weight": "embedding.up.weight",
            **maps,
            "model.decoder.project_out.weight": "head.dense.weight",
            "lm_head.weight": words,
        }


def head(c: Config, words: Tokens | Factorised, name: str) -> HeadSpec | None:
    """Narrow embeddings are read backwards by way of a map to their width."""
    if isinstance(words, Tokens):
        return language(c, name, tied=True)
    if not speaks(name):
        raise ValueError("word_embed_proj_dim is not hidden_size, which is understood of OPTForCausalLM alone")
    decoder = c.take("tie_word_embeddings", NARROW_HEADS, "head.decoder", True)
    return Masked(activation="identity", norm=NoNorm(), decoder=decoder, size=words.size, bias=False)
