"""Longformer (Beltagy et al. 2020): RoBERTa whose tokens see their neighbours, and a few global ones all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, ClassVar

from anyformer.architectures.encoder import Encoder
from anyformer.attention.longformer import Longformer as Attention
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import FRACTION, SIZE, Config, Kind
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.bert import (
    MIXER,
    OLD_NORMS,
    Usual,
    as_filed,
    block,
    classes,
    embedded,
    encoder,
    layers,
    task,
    typed,
)
from anyformer.models.roberta import after_padding, answers, head_names
from anyformer.norms.nothing import NoNorm
from anyformer.patterns.base import parse
from anyformer.patterns.global_tokens import GlobalTokens
from anyformer.patterns.window import Window


def _read(width: Any) -> Window:
    if SIZE.read(width) % 2:
        raise ValueError
    return Window(width // 2 + 1)


def _write(pattern: str) -> int:
    window = parse(pattern)
    if not isinstance(window, Window) or window.size < 2:
        raise ValueError
    return 2 * (window.size - 1)


WIDTH: Kind[Window] = Kind("an even number of tokens from 2", _read, _write)
# an int is every layer's
ALL: Kind[Window | None] = Kind(
    f"{WIDTH.what}, or a list of one for each layer", lambda n: None if isinstance(n, list) else _read(n)
)


class Longformer(ModelType):
    """Longformer, neighbours and a few global tokens, which the label `global` marks (Beltagy et al. 2020)."""

    classes = classes("Longformer")
    prefix = "longformer."
    renamed = OLD_NORMS
    ties: ClassVar = {"lm_head.decoder.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> Encoder:
        usual = Usual.of(c)
        c.ignore("tie_word_embeddings", "onnx_export", "ignore_attention_mask")
        c.said({"attention_mode": "longformer"})
        mixer = Attention(
            heads=c.take("num_attention_heads", SIZE, f"{MIXER}.heads"),
            global_tokens=GlobalTokens("global", first=1 if task(name) == "SequenceClassification" else 0),
            bias=True,
            dropout=c.take("attention_probs_dropout_prob", FRACTION, f"{MIXER}.dropout", 0.1),
        )
        one, count = block(c, usual, mixer), c.count("num_hidden_layers", "body.blocks")
        blocks = [replace(one, mixer=replace(mixer, pattern=window)) for window in self.windows(c, count)]
        body = Stack(blocks=tuple(blocks), norm=NoNorm())
        made = encoder(c, usual, typed(c, after_padding(c)), body, answers(c, name, usual))
        return replace(made, labels=(*made.labels, "global"))

    def windows(self, c: Config, count: int) -> tuple[Window, ...]:
        """What each layer's tokens see."""
        same = c.given("attention_window", ALL, None)
        if same is not None:
            return (same,) * count
        return c.each("attention_window", WIDTH, "body.blocks.{i}.mixer.pattern", count, [512] * count)

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, "longformer.pooler.dense.weight")

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Encoder)
        theirs, ours = "longformer.encoder.layer.{i}.attention.self", "body.blocks.{i}.mixer"
        more = {f"{theirs}.{part}_global": f"{ours}.{part[0]}_global" for part in ("query", "key", "value")}
        return {
            **embedded("longformer."),
            **layers("longformer."),
            **sides(more),
            **head_names(spec.head, "longformer.pooler.dense"),
        }
