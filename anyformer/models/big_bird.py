"""BigBird (Zaheer et al. 2020): BERT for long texts, whose blocks see near blocks and the two at the ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import sqrt
from typing import ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.attention.big_bird import BigBird as Attention
from anyformer.attention.softmax import Softmax
from anyformer.checkpoints.config import FLAG, FRACTION, SIZE, WHOLE, Config, Kind, one_of
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import HeadSpec, LayerSpec, ModelSpec
from anyformer.embeddings.tokens import Tokens
from anyformer.heads.classify import Classify
from anyformer.heads.mark import Mark
from anyformer.heads.regress import Regress
from anyformer.models.answers import head_dropout, whole_text
from anyformer.models.base import ModelType
from anyformer.models.bert import (
    MIXER,
    OLD_NORMS,
    Usual,
    alike,
    as_filed,
    block,
    classes,
    embedded,
    encoder,
    head,
    head_names,
    layers,
    learned,
    task,
    typed,
    unread,
)
from anyformer.patterns.full import Full

KINDS = one_of({"block_sparse": "big_bird", "original_full": "softmax"})
SPARSE = ("block_size", "num_random_blocks")
POOLER = "bert.pooler"


def attention(c: Config) -> LayerSpec:
    """Sparse, or to the whole text."""
    kind = c.take("attention_type", KINDS, f"{MIXER}.kind", "block_sparse")
    heads = c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
    bias = c.take("use_bias", FLAG, f"{MIXER}.bias", True)
    dropout = c.take("attention_probs_dropout_prob", FRACTION, f"{MIXER}.dropout", 0.1)
    if kind == "softmax":
        c.ignore(*SPARSE)
        return Softmax(heads=heads, pattern=Full(), bias=bias, out_bias=True, dropout=dropout)
    return Attention(
        heads=heads,
        block_size=c.take("block_size", SIZE, f"{MIXER}.block_size", 64),
        random_blocks=c.take("num_random_blocks", WHOLE, f"{MIXER}.random_blocks", 3),
        bias=bias,
        out_bias=True,
        dropout=dropout,
    )


class BigBird(ModelType):
    """BigBird, near blocks and the two at the ends (Zaheer et al. 2020)."""

    # its head for questions has layers of its own
    classes = (
        *(name for name in classes("BigBird") if task(name) != "QuestionAnswering"),
        "BigBirdForPreTraining",
    )
    prefix = "bert."
    renamed = OLD_NORMS
    ties: ClassVar = {"cls.predictions.decoder.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        usual = Usual.of(c, "gelu_new")
        c.ignore("tie_word_embeddings")
        answer = self.head(c, name, usual)
        made = encoder(c, usual, typed(c, learned(c)), alike(c, block(c, usual, attention(c))), answer)
        times = sqrt(made.width)
        scale = Kind(FLAG.what, lambda flag: times if FLAG.read(flag) else 1.0, lambda scale: _scaled(scale, times))
        return replace(made, embedding=Tokens(scale=c.take("rescale_embeddings", scale, "embedding.scale", False)))

    def head(self, c: Config, name: str, usual: Usual) -> HeadSpec | None:
        """What a class answers."""
        if task(name) == "SequenceClassification":
            dropout = head_dropout(c, "classifier_dropout", usual.dropout)
            return whole_text(c, Classify(hidden=True, activation=usual.activation, dropout=dropout))
        return head(c, name, usual)

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, f"{POOLER}.weight")

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        if isinstance(spec.head, Classify | Mark | Regress):
            parts = {"classifier.dense": "head.pooler.dense", "classifier.out_proj": "head.out"}
            found = {**sides(parts), **unread(POOLER)}
        else:
            found = head_names(spec.head, POOLER)
        return {**embedded("bert."), **layers("bert."), **found}


def _scaled(scale: float, times: float) -> bool:
    if scale not in (1.0, times):
        raise ValueError
    return scale == times
