"""Which head of ours a published decoder has: words, or a class of the whole text."""

from __future__ import annotations

from anyformer.architectures.decoder import Decoder
from anyformer.checkpoints.config import Config, one_of
from anyformer.checkpoints.names import Names
from anyformer.core.spec import HeadSpec, ModelSpec
from anyformer.heads.classify import Classify
from anyformer.heads.language import Language
from anyformer.heads.mark import Mark
from anyformer.heads.regress import Regress
from anyformer.heads.tied import Tied
from anyformer.models.answers import whole_text
from anyformer.models.base import is_bare

TIES = {"lm_head.weight": "embedding.weight"}  # what files of tied models may hold twice


def speaks(name: str) -> bool:
    """Whether a class answers with words."""
    return name.endswith(("ForCausalLM", "LMHeadModel"))


def language(
    c: Config, name: str, *, tied: bool, at: str = "head", scale: float = 1.0, bias: bool = False
) -> HeadSpec | None:
    """Words as `tie_word_embeddings` says, or a class, read off the last token, or nothing.

    name: of the class. tied: where the config does not say it. scale, bias: of either head for words.
    """
    if not speaks(name):
        c.ignore("tie_word_embeddings")
        return None if is_bare(name) else whole_text(c, Classify(pool="last", bias=False))
    heads = one_of({True: Tied(scale=scale, bias=bias), False: Language(scale=scale, bias=bias)})
    return c.take("tie_word_embeddings", heads, at, tied)


def answered(spec: ModelSpec, names: Names) -> Names:
    """A table of names as the files of a decoder's class have them: what maps to classes is no map to words."""
    if not (isinstance(spec, Decoder) and isinstance(spec.head, Classify | Mark | Regress)):
        return names
    return {"score.weight" if ours == "head.out.weight" else theirs: ours for theirs, ours in names.items()}
