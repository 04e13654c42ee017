"""ELECTRA (Clark et al. 2020): BERT with narrow embeddings, as a generator of words and as a judge of each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.checkpoints.config import SIZE, Config, Kind
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import HeadSpec, ModelSpec
from anyformer.heads.classify import Classify
from anyformer.heads.replaced import Replaced
from anyformer.heads.span import Span
from anyformer.heads.tag import Tag
from anyformer.models.answers import head_dropout, whole_text
from anyformer.models.base import ModelType
from anyformer.models.bert import (
    OLD_KEYS,
    OLD_NORMS,
    Usual,
    alike,
    block,
    classes,
    embedded,
    encoder,
    full,
    head,
    layers,
    learned,
    masked,
    task,
    typed,
)


class Electra(ModelType):
    """ELECTRA, which judges every token (Clark et al. 2020)."""

    classes = (*classes("Electra"), "ElectraForPreTraining")
    prefix = "electra."
    renamed = OLD_NORMS
    ties: ClassVar = {"generator_lm_head.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        usual = Usual.of(c)
        c.ignore("tie_word_embeddings", *OLD_KEYS)
        c.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout")  # of multiple choice
        made = encoder(c, usual, typed(c, learned(c)), alike(c, block(c, usual, full(c))), None)
        narrow = Kind(SIZE.what, lambda n: None if SIZE.read(n) == made.width else n, lambda n: n or made.width)
        size = c.take("embedding_size", narrow, "size", 128)
        return replace(made, size=size, head=self.head(c, name, usual, size))

    def head(self, c: Config, name: str, usual: Usual, size: int | None) -> HeadSpec | None:
        """What a class answers."""
        match task(name):
            case "MaskedLM":
                return replace(masked(c, usual), activation="gelu", size=size)
            case "PreTraining":
                return Replaced(activation=usual.activation)
            case "SequenceClassification":
                dropout = head_dropout(c, "classifier_dropout", usual.dropout)
                return whole_text(c, Classify(hidden=True, activation="gelu", dropout=dropout))
            case "":
                return None
            case _:
                return head(c, name, usual)

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        match spec.head:
            case Span():
                out = {"qa_outputs": "head.out"}
            case Tag():
                out = {"classifier": "head.out"}
            case Replaced():
                out = {
                    "discriminator_predictions.dense": "head.dense",
                    "discriminator_predictions.dense_prediction": "head.out",
                }
            case _:
                out = {
                    "generator_predictions.dense": "head.dense",
                    "generator_predictions.LayerNorm": "head.norm",
                    "classifier.dense": "head.pooler.dense",
                    "classifier.out_proj": "head.out",
                }
        return {
            **embedded("electra."),
            **layers("electra."),
            **sides({"electra.embeddings_project": "up", **out}),
            "generator_lm_head.bias": "head.decoder.bias",
        }
