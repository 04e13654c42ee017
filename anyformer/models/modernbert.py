"""ModernBERT (Warner et al. 2024): a pre-norm encoder with rotary positions, gated units and windows in most layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, POSITIVE, SIZE, Config, Kind, one_of
from anyformer.checkpoints.names import Fused, Names, Rule, sides
from anyformer.core.spec import HeadSpec, ModelSpec, Ref
from anyformer.feedforward.gated import Gated
from anyformer.heads.classify import Classify
from anyformer.heads.language import Language
from anyformer.heads.masked import Masked
from anyformer.heads.pooling import Pool
from anyformer.heads.tag import Tag
from anyformer.heads.tied import Tied
from anyformer.models.answers import labels, whole_text
from anyformer.models.base import ModelType
from anyformer.models.bert import FF, MIXER, classes, task
from anyformer.models.grouped import ALL, AROUND, PATTERN, SLIDING, layer_types
from anyformer.models.llama import no_padding
from anyformer.norms.layer import LayerNorm
from anyformer.norms.nothing import NoNorm
from anyformer.patterns.base import Pattern
from anyformer.patterns.full import Full
from anyformer.positions.rotary import Rotary
from anyformer.residuals.pre import Pre

POOLS: Kind[Pool] = one_of({"cls": "first", "mean": "mean"})
DECODERS = one_of({True: "tied", False: "language"})


def _thetas(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise ValueError
    for one in value.values():
        if one.keys() - {"rope_theta", "rope_type"} or one.get("rope_type", "default") != "default":
            raise ValueError
    return {kind: POSITIVE.read(one["rope_theta"]) for kind, one in value.items() if "rope_theta" in one}


THETAS: Kind[dict[str, float]] = Kind("a rope_theta for each type of layer, without scaling", _thetas)
KEYS = {ALL: "global_rope_theta", SLIDING: "local_rope_theta"}  # as older files have them
USUAL = {ALL: 160_000.0, SLIDING: 10_000.0}


def turns(c: Config, types: Sequence[str]) -> dict[str, Rotary]:
    """How each type of layer turns queries and keys."""
    told, made = c.given("rope_parameters", THETAS, {}), {}
    for kind, key in KEYS.items():
        theta = told.get(kind, USUAL[kind])
        if kind in types:
            at = f"body.blocks.{types.index(kind)}.mixer.position.theta"
            made[kind] = Rotary(theta=c.take(key, POSITIVE, at, theta))
        c.ignore(key)
    return made


def sights(c: Config, types: Sequence[str]) -> dict[str, Pattern]:
    """What each type of layer sees."""
    if SLIDING not in types:
        c.ignore("local_attention")
        return {ALL: Full()}
    return {ALL: Full(), SLIDING: c.take("local_attention", AROUND, PATTERN.format(i=types.index(SLIDING)), 128)}


class ModernBert(ModelType):
    """ModernBERT, a pre-norm encoder of long texts (Warner et al. 2024)."""

    # its head for questions maps every token before
    classes = tuple(name for name in classes("ModernBert") if task(name) != "QuestionAnswering")
    prefix = "model."
    ties: ClassVar = {"decoder.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        c.ignore("initializer_cutoff_factor", "deterministic_flash_attn", "reference_compile", "repad_logits_with_grad")
        c.ignore("sparse_prediction", "sparse_pred_ignore_index", "cls_token_id")  # what training does
        c.ignore("layer_norm_eps", "position_embedding_type")  # in files, beside what is read
        no_padding(c)
        norm = LayerNorm(
            eps=c.take("norm_eps", POSITIVE, "body.norm.eps", 1e-5),
            bias=c.take("norm_bias", FLAG, "body.norm.bias", False),
        )
        count, period = c.count("num_hidden_layers", "body.blocks"), c.given("global_attn_every_n_layers", SIZE, 3)
        types = layer_types(c, [SLIDING if index % period else ALL for index in range(count)])
        turn, see = turns(c, types), sights(c, types)
        heads = c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
        bias = c.take("attention_bias", FLAG, f"{MIXER}.bias", False)
        dropout = c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0)
        mixers = {
            kind: Softmax(heads=heads, pattern=see[kind], position=turn[kind], bias=bias, dropout=dropout)
            for kind in set(types)
        }
        ff = Gated(
            hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
            activation=c.take("hidden_activation", ACTIVATIONS, f"{FF}.activation", "gelu"),
            bias=c.take("mlp_bias", FLAG, f"{FF}.bias", False),
            dropout=c.take("mlp_dropout", FRACTION, f"{FF}.dropout", 0.0),
        )
        # what enters is normalised already
        residuals = (Pre(norm=norm, mixer_norm=NoNorm()), *(Pre(norm=norm),) * (count - 1))
        blocks = [Block(mixer=mixers[kind], ff=ff, residual=one) for kind, one in zip(types, residuals, strict=True)]
        return Encoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=c.take("hidden_size", SIZE, "width"),
            context=c.take("max_position_embeddings", SIZE, "context", 8192),
            norm=norm,
            dropout=c.take("embedding_dropout", FRACTION, "dropout", 0.0),
            body=Stack(blocks=tuple(blocks), norm=norm),
            head=self.head(c, name, norm),
        )

    def head(self, c: Config, name: str, norm: LayerNorm) -> HeadSpec | None:
        """What a class answers; all of them map the vectors before."""
        c.ignore("tie_word_embeddings", "decoder_bias")  # some of these keys are of other classes
        c.ignore("classifier_pooling", "classifier_bias", "classifier_activation")
        if not task(name):
            return None
        activation = c.take("classifier_activation", ACTIVATIONS, "head.activation", "gelu")
        match task(name):
            case "MaskedLM":
                tied = c.take("tie_word_embeddings", DECODERS, "head.decoder.kind", True) == "tied"
                bias = c.take("decoder_bias", FLAG, "head.decoder.bias", True)
                decoder = Tied(bias=bias) if tied else Language(bias=bias)
            case "TokenClassification":
                dropout = c.take("classifier_dropout", FRACTION, "head.decoder.dropout", 0.0)
                decoder = Tag(labels=labels(c, "head.decoder"), dropout=dropout)
            case _:
                like = Classify(
                    pool=c.take("classifier_pooling", POOLS, "head.pool", "cls"),
                    hidden=True,
                    activation=activation,
                    dropout=c.take("classifier_dropout", FRACTION, "head.dropout", 0.0),
                    hidden_bias=c.take("classifier_bias", FLAG, "head.hidden_bias", False),
                    norm=norm,
                )
                return whole_text(c, like)
        bias = c.take("classifier_bias", FLAG, "head.bias", False)
        return Masked(activation=activation, norm=norm, bias=bias, decoder=decoder)

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        theirs, ours = "model.layers.{i}", "body.blocks.{i}"
        table: dict[str, str | Rule] = {"model.embeddings.tok_embeddings.weight": "embedding.weight"}
        same = {
            "model.embeddings.norm": "norm",
            "model.final_norm": "body.norm",
            f"{theirs}.attn_norm": f"{ours}.residual.norm.mixer",
            f"{theirs}.mlp_norm": f"{ours}.residual.norm.ff",
            f"{theirs}.attn.Wo": f"{ours}.mixer.o",
            f"{theirs}.mlp.Wo": f"{ours}.ff.down",
        }
        for side in ("weight", "bias"):
            table[f"{theirs}.attn.Wqkv.{side}"] = Fused(tuple(f"{ours}.mixer.{part}.{side}" for part in "qkv"))
            table[f"{theirs}.mlp.Wi.{side}"] = Fused(tuple(f"{ours}.ff.{part}.{side}" for part in ("gate", "up")))
        return {**table, **sides(same), **_head_names(spec.head)}


def _head_names(head: HeadSpec | Ref | None) -> dict[str, str]:
    if not isinstance(head, Masked):
        return sides({"head.dense": "head.pooler.dense", "head.norm": "head.pooler.norm", "classifier": "head.out"})
    found = sides({"head.dense": "head.dense", "head.norm": "head.norm"})
    match head.decoder:
        case Tied():
            return {**found, "decoder.bias": "head.decoder.bias"}
        case Tag():
            return {**found, **sides({"classifier": "head.decoder.out"})}
        case _:
            return {**found, **sides({"decoder": "head.decoder.out"})}
