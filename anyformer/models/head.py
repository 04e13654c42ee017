"""Which head of ours a published language model has."""

from __future__ import annotations

from anyformer.checkpoints.config import Config, one_of
from anyformer.core.spec import HeadSpec
from anyformer.heads.language import Language
from anyformer.heads.tied import Tied

TIES = {"lm_head.weight": "embedding.weight"}  # what files of tied models may hold twice


def language(
    c: Config, *, bare: bool, tied: bool, at: str = "head", scale: float = 1.0, bias: bool = False
) -> HeadSpec | None:
    """What `tie_word_embeddings` says. bare: a model without a head. tied: where the config does not say it.

    scale, bias: of either head.
    """
    if bare:
        c.ignore("tie_word_embeddings")
        return None
    heads = one_of({True: Tied(scale=scale, bias=bias), False: Language(scale=scale, bias=bias)})
    return c.take("tie_word_embeddings", heads, at, tied)
