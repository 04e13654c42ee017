"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020): BERT whose positions begin after the padding's row,
with heads of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.checkpoints.config import SIZE, WHOLE, Config, Kind
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import HeadSpec, ModelSpec, Ref
from anyformer.heads.masked import Masked
from anyformer.heads.sentence import Sentence
from anyformer.heads.span import Span
from anyformer.heads.tag import Tag
from anyformer.models.base import ModelType
from anyformer.models.bert import (
    OLD_NORMS,
    Usual,
    alike,
    as_filed,
    block,
    classes,
    embedded,
    encoder,
    full,
    head,
    layers,
    task,
    typed,
    unread,
)
from anyformer.positions.learned import Learned

AFTER: Kind[int] = Kind("the padding's number", lambda n: WHOLE.read(n) + 1, lambda n: WHOLE.read(n - 1))


def after_padding(c: Config) -> Learned:
    """Positions from pad_token_id + 1 on."""
    at = "position.schemes.0"
    first = c.take("pad_token_id", AFTER, f"{at}.first", 1)
    return Learned(first=first, length=c.take("max_position_embeddings", beyond(first), f"{at}.length", 512))


def beyond(first: int) -> Kind[int]:
    """The rows of a table of positions that are used, those from `first` on."""
    return Kind(f"a whole number above {first}", lambda n: SIZE.read(SIZE.read(n) - first), lambda n: n + first)


def head_names(head: HeadSpec | Ref | None, pooler: str) -> dict[str, str | None]:
    """The tensors of RoBERTa's heads. pooler: of theirs, which files may have kept from a bare model."""
    match head:
        case None | Sentence():
            return {**sides({pooler: "head.pooler.dense"})}
        case Masked():
            parts = {"lm_head.dense": "head.dense", "lm_head.layer_norm": "head.norm"}
            words = {"lm_head.bias": "head.decoder.bias", "lm_head.decoder.bias": None}  # old files have it twice
            return {**sides(parts), **words, **unread(pooler)}
        case Span():
            parts = {"qa_outputs": "head.out"}
        case Tag():
            parts = {"classifier": "head.out"}
        case _:
            parts = {"classifier.dense": "head.pooler.dense", "classifier.out_proj": "head.out"}
    return {**sides(parts), **unread(pooler)}


def answers(c: Config, name: str, usual: Usual) -> HeadSpec | None:
    """What RoBERTa's classes answer: as BERT's do, but with gelu before the words, whatever the layers have."""
    return head(c, name, replace(usual, activation="gelu") if task(name) == "MaskedLM" else usual)


class Roberta(ModelType):
    """RoBERTa, BERT that was trained for longer (Liu et al. 2019)."""

    classes = classes("Roberta")
    prefix = "roberta."
    renamed = OLD_NORMS
    ties: ClassVar = {"lm_head.decoder.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        usual = Usual.of(c)
        c.ignore("tie_word_embeddings")
        body = alike(c, block(c, usual, full(c)))
        return encoder(c, usual, typed(c, after_padding(c)), body, answers(c, name, usual))

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, "roberta.pooler.dense.weight")

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        return {**embedded("roberta."), **layers("roberta."), **head_names(spec.head, "roberta.pooler.dense")}


class XLMRoberta(Roberta):
    """XLM-RoBERTa, the same in a hundred languages (Conneau et al. 2020)."""

    classes = classes("XLMRoberta")
