"""ALBERT (Lan et al. 2020): BERT with narrow embeddings, and layers that are the same weights again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import FRACTION, SIZE, Config, Kind
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import HeadSpec, LayerSpec, ModelSpec, Ref
from anyformer.heads.classify import Classify
from anyformer.heads.masked import Masked
from anyformer.heads.pretraining import Pretraining
from anyformer.heads.span import Span
from anyformer.heads.tag import Tag
from anyformer.models.answers import each_token, head_dropout, whole_text
from anyformer.models.base import ModelType
from anyformer.models.bert import (
    OLD_NORMS,
    Usual,
    as_filed,
    block,
    classes,
    embedded,
    encoder,
    full,
    head,
    learned,
    masked,
    task,
    typed,
    unread,
)
from anyformer.norms.nothing import NoNorm

# of files from the first years, which nothing reads
OLD_KEYS = ("down_scale_factor", "gap_size", "layers_to_keep", "net_structure_type", "num_memory_blocks")
POOLER = "albert.pooler"


def _owners(blocks: Sequence[Any]) -> int:
    """How many blocks have weights of their own, of blocks that are written as plain data."""
    return sum("ref" not in block for block in blocks)


GROUPS: Kind[int] = Kind(SIZE.what, SIZE.read, _owners)


def grouped(block: LayerSpec, layers: int, groups: int) -> Stack:
    """Layers in groups of neighbours, each group one block again and again."""
    if groups > layers:
        raise ValueError(f"num_hidden_groups is {groups} for {layers} layers")
    first: dict[int, int] = {}  # the layer where a group begins
    blocks: list[LayerSpec | Ref] = []
    for layer in range(layers):
        owner = first.setdefault(int(layer / (layers / groups)), layer)  # rounded as it was in training
        blocks.append(block if owner == layer else Ref(f"body.blocks.{owner}"))
    return Stack(blocks=tuple(blocks), norm=NoNorm())


class Albert(ModelType):
    """ALBERT, one layer again and again (Lan et al. 2020)."""

    classes = (*classes("Albert"), "AlbertForPreTraining")
    prefix = "albert."
    renamed = OLD_NORMS
    ties: ClassVar = {"predictions.decoder.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        usual = Usual.of(c, "gelu_new", 0.0)
        c.ignore("tie_word_embeddings", "classifier_dropout_prob", *OLD_KEYS)
        c.expect("inner_group_num", 1, default=1)
        one, count = block(c, usual, full(c, 0.0)), c.count("num_hidden_layers", "body.blocks")
        body = grouped(one, count, c.take("num_hidden_groups", GROUPS, "body.blocks", 1))
        size = c.take("embedding_size", SIZE, "size", 128)
        made = encoder(c, usual, typed(c, learned(c)), body, self.head(c, name, usual, size))
        return replace(made, size=size)

    def head(self, c: Config, name: str, usual: Usual, size: int) -> HeadSpec | None:
        """What a class answers."""
        match task(name):
            case "MaskedLM":
                return replace(masked(c, usual), size=size)
            case "PreTraining":
                dropout = c.take("classifier_dropout_prob", FRACTION, "head.pair.dropout", 0.1)
                pair = Classify(labels=("next", "other"), hidden=True, dropout=dropout)
                return Pretraining(tokens=replace(masked(c, usual), size=size), pair=pair)
            case "SequenceClassification":
                dropout = head_dropout(c, "classifier_dropout_prob", usual.dropout, 0.1)
                return whole_text(c, Classify(hidden=True, dropout=dropout))
            case "TokenClassification":
                return each_token(c, head_dropout(c, "classifier_dropout_prob", usual.dropout, 0.1))
            case _:
                return head(c, name, usual)

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, f"{POOLER}.weight")

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder) and isinstance(spec.body, Stack)
        owners = [index for index, block in enumerate(spec.body.blocks) if not isinstance(block, Ref)]
        return {
            **embedded("albert."),
            "albert.encoder.embedding_hidden_mapping_in.weight": "up.weight",
            "albert.encoder.embedding_hidden_mapping_in.bias": "up.bias",
            **{name: ours for group, owner in enumerate(owners) for name, ours in _layer(group, owner).items()},
            **_head_names(spec.head),
        }


def _layer(group: int, block: int) -> dict[str, str]:
    theirs, ours = f"albert.encoder.albert_layer_groups.{group}.albert_layers.0", f"body.blocks.{block}"
    return sides(
        {
            f"{theirs}.attention.query": f"{ours}.mixer.q",
            f"{theirs}.attention.key": f"{ours}.mixer.k",
            f"{theirs}.attention.value": f"{ours}.mixer.v",
            f"{theirs}.attention.dense": f"{ours}.mixer.o",
            f"{theirs}.attention.LayerNorm": f"{ours}.residual.norm.mixer",
            f"{theirs}.ffn": f"{ours}.ff.up",
            f"{theirs}.ffn_output": f"{ours}.ff.down",
            f"{theirs}.full_layer_layer_norm": f"{ours}.residual.norm.ff",
        }
    )


def _head_names(head: HeadSpec | Ref | None) -> dict[str, str | None]:
    match head:
        case Pretraining():
            pair = {POOLER: "head.pair.pooler.dense", "sop_classifier.classifier": "head.pair.out"}
            return {**_words("head.tokens"), **sides(pair)}
        case Masked():
            return {**_words("head"), **unread(POOLER, "sop_classifier.classifier")}
        case Span():
            return {**sides({"qa_outputs": "head.out"}), **unread(POOLER)}
        case Tag():
            return {**sides({"classifier": "head.out"}), **unread(POOLER)}
        case _:
            return {**sides({"classifier": "head.out", POOLER: "head.pooler.dense"})}


def _words(ours: str) -> dict[str, str | None]:
    parts = {"predictions.dense": f"{ours}.dense", "predictions.LayerNorm": f"{ours}.norm"}
    return {**sides(parts), "predictions.bias": f"{ours}.decoder.bias", "predictions.decoder.bias": None}
