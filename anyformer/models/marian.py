"""Marian (Junczys-Dowmunt et al. 2018): a post-norm translator with sinusoids, all sines before all cosines.

Pegasus (Zhang et al. 2020) is pre-norm and has the same positions. A file may hold their table, which is then read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.encoder_decoder import EncoderDecoder
from anyformer.checkpoints.config import SIZE, Config, one_of, or_none
from anyformer.checkpoints.names import Names
from anyformer.core.spec import EmbeddingSpec, ModelSpec, NormSpec, PositionSpec, Ref, ResidualSpec
from anyformer.embeddings.tokens import Tokens
from anyformer.models.bart import OLD_KEYS, TIES, dropout, form, logits_bias, stack, tensors, tied, words
from anyformer.models.base import ModelType
from anyformer.models.llama import no_padding
from anyformer.norms.layer import LayerNorm
from anyformer.norms.nothing import NoNorm
from anyformer.positions.learned import Learned
from anyformer.positions.sinusoidal_halves import SinusoidalHalves
from anyformer.residuals.post import Post
from anyformer.residuals.pre import Pre

SHARED = Ref("embedding")
TABLE = "model.encoder.embed_positions.weight"


def waves(c: Config, longest: int) -> PositionSpec:
    """Computed, or a fixed table; read forwards, a file that has one is seen by its tensors."""
    return Learned(length=longest, trainable=False) if c.kind("position") == "learned" else SinusoidalHalves()


def as_filed(spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
    """With the file's table of positions, where it has one."""
    assert isinstance(spec, EncoderDecoder)
    if TABLE not in tensors:
        return spec
    position = Learned(length=spec.context or 1, trainable=False)
    return replace(spec, position=position, source_position=position)


def translator(
    c: Config,
    residual: ResidualSpec,
    norm: NormSpec,
    *,
    vocabulary: int,
    bare: bool,
    source: EmbeddingSpec | Ref = SHARED,
    source_vocabulary: int | None = None,
) -> EncoderDecoder:
    """Both sides with sinusoids. norm: the last one of each. bare: without a head."""
    c.ignore(*OLD_KEYS)
    width, longest = c.take("d_model", SIZE, "width"), c.take("max_position_embeddings", SIZE, "context", 1024)
    position = waves(c, longest)
    return EncoderDecoder(
        vocabulary=vocabulary,
        source_vocabulary=source_vocabulary,
        width=width,
        context=longest,
        embedding=words(c, width),
        source_embedding=source,
        position=position,
        source_position=position,
        dropout=dropout(c),
        encoder=stack(c, "encoder", residual, norm),
        decoder=stack(c, "decoder", residual, norm),
        head=tied(c, bare=bare),
    )


class Marian(ModelType):
    """Marian, the translators of OPUS-MT: post-norm, sines before cosines (Junczys-Dowmunt et al. 2018)."""

    classes = ("MarianMTModel", "MarianModel")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> EncoderDecoder:
        no_padding(c)
        c.said(form(pre=False, static=True, normalised=False))
        embedding = words(c, c.take("d_model", SIZE, "width"))
        source = c.take(
            "share_encoder_decoder_embeddings",
            one_of({True: SHARED, False: embedding}),
            "source_embedding",
            True,
        )
        apart = isinstance(source, Tokens)
        first = c.take("vocab_size", SIZE, "source_vocabulary" if apart else "vocabulary")
        if apart:
            second = c.take("decoder_vocab_size", or_none(SIZE), "vocabulary", None) or first
        else:
            c.ignore("decoder_vocab_size")
            second = first
        return translator(
            c,
            Post(dropout=dropout(c)),
            NoNorm(),
            vocabulary=second,
            source=source,
            source_vocabulary=first if apart else None,
            bare=name == "MarianModel",
        )

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors)

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, EncoderDecoder)
        apart = {
            "model.encoder.embed_tokens.weight": "source_embedding.weight",
            "model.decoder.embed_tokens.weight": "embedding.weight",
        }
        shared = {"model.shared.weight": "embedding.weight"}
        return {**tensors(apart if isinstance(spec.source_embedding, Tokens) else shared), **logits_bias(spec)}


class Pegasus(ModelType):
    """Pegasus, a summariser: pre-norm, sines before cosines (Zhang et al. 2020)."""

    classes = ("PegasusForConditionalGeneration", "PegasusModel")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> EncoderDecoder:
        c.said(form(pre=True, static=True, normalised=False))
        vocabulary = c.take("vocab_size", SIZE, "vocabulary")
        residual = Pre(dropout=dropout(c))
        return translator(c, residual, LayerNorm(), vocabulary=vocabulary, bare=name == "PegasusModel")

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors)

    def names(self, spec: ModelSpec) -> Names:
        return {**tensors({"model.shared.weight": "embedding.weight"}), **logits_bias(spec)}
