"""MPNet (Song et al. 2020): RoBERTa without token types, with T5's bias for distances, one table for all layers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import Config
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import ModelSpec, Ref
from anyformer.models.base import ModelType
from anyformer.models.bert import MIXER, OLD_NORMS, Usual, as_filed, block, classes, encoder, full
from anyformer.models.roberta import answers, beyond, head_names
from anyformer.norms.nothing import NoNorm
from anyformer.positions.learned import Learned
from anyformer.positions.t5 import T5

FIRST = 2  # the position of the first token, whatever the padding's number is


class MPNet(ModelType):
    """MPNet, with a bias for distances (Song et al. 2020)."""

    classes = classes("MPNet")
    prefix = "mpnet."
    renamed = OLD_NORMS
    ties: ClassVar = {"lm_head.decoder.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        usual = Usual.of(c)
        c.ignore("tie_word_embeddings")
        c.expect("relative_attention_num_buckets", 32, default=32)  # others are declared, and never used
        mixer = full(c)
        first = block(c, usual, replace(mixer, position=T5(buckets=32, furthest=128, both_ways=True)))
        other = replace(first, mixer=replace(mixer, position=Ref(f"{MIXER}.position")))
        body = Stack(blocks=(first, *(other,) * (c.count("num_hidden_layers", "body.blocks") - 1)), norm=NoNorm())
        length = c.take("max_position_embeddings", beyond(FIRST), "position.length", 512)
        return encoder(c, usual, Learned(first=FIRST, length=length), body, answers(c, name, usual))

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, "mpnet.pooler.dense.weight")

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        theirs, ours = "mpnet.encoder.layer.{i}", "body.blocks.{i}"
        parts = {
            "mpnet.embeddings.LayerNorm": "norm",
            **{f"{theirs}.attention.attn.{part}": f"{ours}.mixer.{part}" for part in "qkvo"},
            f"{theirs}.attention.LayerNorm": f"{ours}.residual.norm.mixer",
            f"{theirs}.intermediate.dense": f"{ours}.ff.up",
            f"{theirs}.output.dense": f"{ours}.ff.down",
            f"{theirs}.output.LayerNorm": f"{ours}.residual.norm.ff",
        }
        return {
            "mpnet.embeddings.word_embeddings.weight": "embedding.weight",
            "mpnet.embeddings.position_embeddings.weight": "position.weight",
            "mpnet.embeddings.position_ids": None,
            "mpnet.encoder.relative_attention_bias.weight": f"{MIXER}.position.weight",
            **sides(parts),
            **head_names(spec.head, "mpnet.pooler.dense"),
        }
