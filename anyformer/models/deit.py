"""DeiT (Touvron et al. 2021): ViT with a second token in front, whose head learns from a teacher."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from anyformer.architectures.encoder import Encoder
from anyformer.checkpoints.config import Config
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import HeadSpec, ModelSpec
from anyformer.heads.classify import Classify
from anyformer.heads.distilled import Distilled
from anyformer.models.answers import labels, whole_text
from anyformer.models.base import ModelType
from anyformer.models.bert import as_filed, pooled
from anyformer.models.vit import encoder, filed, layers, patches


def _head(c: Config, name: str) -> HeadSpec | None:
    if name == "DeiTModel":
        return pooled(c)
    return Distilled(labels=labels(c)) if name.endswith("WithTeacher") else whole_text(c, Classify())


class DeiT(ModelType):
    """DeiT (Touvron et al. 2021), with both heads or with the class token's alone."""

    classes = ("DeiTForImageClassificationWithTeacher", "DeiTForImageClassification", "DeiTModel")
    prefix = "deit."

    def declare(self, c: Config, name: str) -> Encoder:
        return encoder(c, replace(patches(c), distillation_token=True), _head(c, name))

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, "deit.pooler.dense.weight")

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        first = "cls_classifier" if isinstance(spec.head, Distilled) else "classifier"
        heads = {first: "head.out", "distillation_classifier": "head.taught", "deit.pooler.dense": "head.pooler.dense"}
        return {**filed(spec, "deit."), **layers("deit."), **sides(heads)}
