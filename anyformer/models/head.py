"""Which head of ours a published language model has."""

from __future__ import annotations

from anyformer.checkpoints.config import Config, one_of
from anyformer.core.spec import HeadSpec
from anyformer.heads.language import Language
from anyformer.heads.tied import Tied

HEADS = one_of({True: Tied(), False: Language()})


def language(c: Config, *, bare: bool, tied: bool) -> HeadSpec | None:
    """What `tie_word_embeddings` says. bare: a model without a head. tied: where the config does not say it."""
    if bare:
        c.ignore("tie_word_embeddings")
        return None
    return c.take("tie_word_embeddings", HEADS, "head", tied)
