"""BERT (Devlin et al. 2019): a post-norm encoder with learned positions and token types, and its usual heads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FRACTION, POSITIVE, SIZE, Config
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import HeadSpec, LayerSpec, ModelSpec, PositionSpec, Ref
from anyformer.feedforward.activations import Activation
from anyformer.feedforward.mlp import MLP
from anyformer.heads.classify import Classify
from anyformer.heads.masked import Masked
from anyformer.heads.pretraining import Pretraining
from anyformer.heads.sentence import Sentence
from anyformer.heads.span import Span
from anyformer.heads.tag import Tag
from anyformer.models.answers import POOLED, each_token, head_dropout, whole_text
from anyformer.models.base import ModelType
from anyformer.norms.layer import LayerNorm
from anyformer.norms.nothing import NoNorm
from anyformer.patterns.full import Full
from anyformer.positions.learned import Learned
from anyformer.positions.segments import Segments
from anyformer.positions.several import Several
from anyformer.residuals.post import Post

# of files from the first years, and keys of theirs that nothing reads
OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
OLD_KEYS = (
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
)
MIXER, FF = "body.blocks.0.mixer", "body.blocks.0.ff"


@dataclass(frozen=True)
class Usual:
    """What BERT and its kin say once and mean everywhere."""

    norm: LayerNorm
    dropout: float
    activation: Activation

    @staticmethod
    def of(c: Config, activation: str = "gelu", dropout: float = 0.1) -> Usual:
        """activation, dropout: where the config says none."""
        c.expect("is_decoder", False, default=False)
        c.expect("add_cross_attention", False, default=False)
        c.expect("position_embedding_type", "absolute", default="absolute")
        return Usual(
            norm=LayerNorm(eps=c.take("layer_norm_eps", POSITIVE, "norm.eps", 1e-12)),
            dropout=c.take("hidden_dropout_prob", FRACTION, "dropout", dropout),
            activation=c.take("hidden_act", ACTIVATIONS, f"{FF}.activation", activation),
        )


def full(c: Config, dropout: float = 0.1) -> Softmax:
    """Attention to the whole text. dropout: where the config says none."""
    return Softmax(
        heads=c.take("num_attention_heads", SIZE, f"{MIXER}.heads"),
        pattern=Full(),
        bias=True,
        dropout=c.take("attention_probs_dropout_prob", FRACTION, f"{MIXER}.dropout", dropout),
    )


def block(c: Config, usual: Usual, mixer: LayerSpec) -> Block:
    """Post-norm, with a feed-forward of two maps."""
    ff = MLP(hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"), activation=usual.activation)
    return Block(mixer=mixer, ff=ff, residual=Post(norm=usual.norm, dropout=usual.dropout))


def alike(c: Config, block: LayerSpec) -> Stack:
    """Post-norm blocks, all the same, which need no norm at the end."""
    return Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=NoNorm())


def encoder(c: Config, usual: Usual, position: PositionSpec, body: Stack, head: HeadSpec | None) -> Encoder:
    """Words and positions, their sum normalised, then the body."""
    return Encoder(
        vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
        width=c.take("hidden_size", SIZE, "width"),
        labels=("segment",) if isinstance(position, Several) else (),
        position=position,
        norm=usual.norm,
        dropout=usual.dropout,
        body=body,
        head=head,
    )


def typed(c: Config, position: PositionSpec) -> Several:
    """Positions, and beside them a vector for the type of each token."""
    types = Segments(count=c.take("type_vocab_size", SIZE, "position.schemes.1.count", 2))
    return Several(schemes=(position, types))


def learned(c: Config) -> Learned:
    """A vector for each position."""
    return Learned(length=c.take("max_position_embeddings", SIZE, "position.schemes.0.length", 512))


def classes(family: str) -> tuple[str, ...]:
    """The classes that all kin have, a bare model first."""
    tasks = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering")
    return (f"{family}Model", *(f"{family}For{task}" for task in tasks))


def task(name: str) -> str:
    """What a class is for, such as MaskedLM; nothing for a bare model."""
    return name.partition("For")[2]


def head(c: Config, name: str, usual: Usual) -> HeadSpec | None:
    """What BERT's classes answer."""
    match task(name):
        case "MaskedLM":
            return masked(c, usual)
        case "PreTraining":
            return Pretraining(tokens=masked(c, usual))
        case "SequenceClassification":
            return whole_text(c, Classify(hidden=True, dropout=head_dropout(c, "classifier_dropout", usual.dropout)))
        case "TokenClassification":
            return each_token(c, head_dropout(c, "classifier_dropout", usual.dropout))
        case "QuestionAnswering":
            return Span()
        case _:
            return pooled(c)


def masked(c: Config, usual: Usual) -> Masked:
    """The head for masked tokens, which reads the embedding backwards."""
    c.expect("tie_word_embeddings", True, default=True)
    return Masked(activation=usual.activation, norm=usual.norm)


def pooled(c: Config) -> HeadSpec | None:
    """What a bare model has; read forwards, a file without a pooler is seen by its tensors."""
    return None if c.kind("head") == "absent" else POOLED


def as_filed(spec: ModelSpec, tensors: Collection[str], pooler: str) -> ModelSpec:
    """A bare model without a pooler where the file has none. pooler: its tensor."""
    bare = isinstance(spec, Encoder) and isinstance(spec.head, Sentence) and pooler not in tensors
    return replace(spec, head=None) if bare else spec


def embedded(prefix: str) -> dict[str, str | None]:
    """The tensors of the entrance; old files have the positions' numbers as well."""
    theirs = f"{prefix}embeddings"
    return {
        f"{theirs}.word_embeddings.weight": "embedding.weight",
        f"{theirs}.position_embeddings.weight": "position.schemes.0.weight",
        f"{theirs}.token_type_embeddings.weight": "position.schemes.1.weight",
        f"{theirs}.position_ids": None,
        **sides({f"{theirs}.LayerNorm": "norm"}),
    }


def layers(prefix: str) -> dict[str, str]:
    """The tensors of the blocks."""
    theirs, ours = f"{prefix}encoder.layer.{{i}}", "body.blocks.{i}"
    return sides(
        {
            f"{theirs}.attention.self.query": f"{ours}.mixer.q",
            f"{theirs}.attention.self.key": f"{ours}.mixer.k",
            f"{theirs}.attention.self.value": f"{ours}.mixer.v",
            f"{theirs}.attention.output.dense": f"{ours}.mixer.o",
            f"{theirs}.attention.output.LayerNorm": f"{ours}.residual.norm.mixer",
            f"{theirs}.intermediate.dense": f"{ours}.ff.up",
            f"{theirs}.output.dense": f"{ours}.ff.down",
            f"{theirs}.output.LayerNorm": f"{ours}.residual.norm.ff",
        }
    )


def masked_names(theirs: str, ours: str) -> dict[str, str | None]:
    """The tensors of BERT's head for masked tokens; old files have its bias twice."""
    transform = {f"{theirs}.transform.dense": f"{ours}.dense", f"{theirs}.transform.LayerNorm": f"{ours}.norm"}
    return {**sides(transform), f"{theirs}.bias": f"{ours}.decoder.bias", f"{theirs}.decoder.bias": None}


def head_names(head: HeadSpec | Ref | None, pooler: str) -> dict[str, str | None]:
    """The tensors of BERT's heads. pooler: of theirs, which files may have kept from a head that pools."""
    match head:
        case Pretraining():
            pair = {pooler: "head.pair.pooler.dense", "cls.seq_relationship": "head.pair.out"}
            return {**masked_names("cls.predictions", "head.tokens"), **sides(pair)}
        case Masked():
            return {**masked_names("cls.predictions", "head"), **unread(pooler, "cls.seq_relationship")}
        case Span():
            return {**sides({"qa_outputs": "head.out"}), **unread(pooler)}
        case Tag():
            return {**sides({"classifier": "head.out"}), **unread(pooler)}
        case _:
            return {**sides({"classifier": "head.out", pooler: "head.pooler.dense"})}


def unread(*parts: str) -> dict[str, None]:
    """Maps that a file may have kept from another head."""
    return dict.fromkeys(sides(dict.fromkeys(parts, "")))


class Bert(ModelType):
    """BERT, a post-norm encoder that fills in words (Devlin et al. 2019)."""

    classes = (*classes("Bert"), "BertForPreTraining")
    prefix = "bert."
    renamed = OLD_NORMS
    ties: ClassVar = {"cls.predictions.decoder.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        usual = Usual.of(c)
        c.ignore("tie_word_embeddings", *OLD_KEYS)
        body = alike(c, block(c, usual, full(c)))
        return encoder(c, usual, typed(c, learned(c)), body, head(c, name, usual))

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, "bert.pooler.dense.weight")

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        return {**embedded("bert."), **layers("bert."), **head_names(spec.head, "bert.pooler.dense")}
