"""Qwen 2 (2024) and 3 (2025): Llama with biases on q, k and v, or norms in their place, and some windows.

In Qwen 2 the layers behind the first few may have a window; newer files name the type of each layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.checkpoints.config import FLAG, SIZE, WHOLE, Config, Kind, or_none
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.grouped import ALL, SLIDING, TYPES, attention, layer_types, patterns
from anyformer.models.head import TIES, language
from anyformer.models.llama import (
    ATTENTION,
    GATED,
    MIXER,
    NORMS,
    POSITION,
    context,
    decoder,
    gated,
    layers,
    rms,
    tensors,
    usual_size,
)
from anyformer.models.rope import rotary
from anyformer.norms.rms import RMSNorm
from anyformer.patterns.base import Pattern
from anyformer.residuals.pre import Pre

WIDTH = 4096  # of windows, where the config does not say it


def _types(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    return [TYPES.write(block["mixer"]["pattern"]) for block in blocks]


def _first(blocks: Sequence[Mapping[str, Any]]) -> int:
    types = _types(blocks)
    return types.index(SLIDING) if SLIDING in types else len(types)


# of all blocks: whether some have a window, and which is the first
SOME: Kind[bool] = Kind(FLAG.what, FLAG.read, lambda blocks: SLIDING in _types(blocks))
FIRST: Kind[int] = Kind(WHOLE.what, WHOLE.read, _first)


def some(c: Config) -> bool:
    """Whether windows are used: a config may say so and give no size."""
    return (
        c.take("use_sliding_window", SOME, "body.blocks", False)
        and c.given("sliding_window", or_none(SIZE), WIDTH) is not None
    )


def windows(c: Config, count: int) -> list[Pattern]:
    """What each layer sees."""
    used, first = some(c), c.take("max_window_layers", FIRST, "body.blocks", 28)
    types = layer_types(c, [SLIDING if used and index >= first else ALL for index in range(count)])
    return told(c, used, types, WIDTH)


def told(c: Config, used: bool, types: Sequence[str], size: int) -> list[Pattern]:
    """What layers of those types see, refusing windows where none are used. size: where the config does not say it."""
    if SLIDING in types and not used:
        raise ValueError(f"layer_types names layers of {SLIDING}, but use_sliding_window is false or there is no size")
    return patterns(c, types, size)


def declared(c: Config, longest: int | None, mixer: Softmax, norm: RMSNorm, name: str) -> Decoder:
    """The mixer in all layers, each with what it sees."""
    ff, residual = gated(c), Pre(norm=norm)
    seen = windows(c, layers(c))
    blocks = [Block(mixer=replace(mixer, pattern=pattern), ff=ff, residual=residual) for pattern in seen]
    return decoder(c, longest, blocks, norm, language(c, name, tied=False))


class Qwen2(ModelType):
    """Qwen 2, Llama with biases on q, k and v (Yang et al. 2024)."""

    classes = ("Qwen2ForCausalLM", "Qwen2Model", "Qwen2ForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore("use_mrope")  # which is another model's
        longest, norm = context(c, 32_768), rms(c)
        mixer = attention(c, MIXER, rotary(c, POSITION, longest), kv_heads=32, sizes=usual_size(c))
        mixer = replace(mixer, bias=True, out_bias=False)
        return declared(c, longest, mixer, norm, name)

    def names(self, spec: ModelSpec) -> Names:
        return tensors({**NORMS, **ATTENTION, **GATED})


class Qwen3(ModelType):
    """Qwen 3, Llama with norms of queries and keys (Yang et al. 2025)."""

    classes = ("Qwen3ForCausalLM", "Qwen3Model", "Qwen3ForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        longest, norm = context(c, 32_768), rms(c)
        turn = rotary(c, POSITION, longest)
        mixer = attention(c, MIXER, turn, kv_heads=32, size=128, bias=False, sizes=usual_size(c))
        return declared(c, longest, replace(mixer, qk_norm=norm), norm, name)

    def names(self, spec: ModelSpec) -> Names:
        norms = {f"self_attn.{part}_norm": f"mixer.{part}_norm" for part in ("q", "k")}
        return tensors({**NORMS, **ATTENTION, **GATED, **norms})
