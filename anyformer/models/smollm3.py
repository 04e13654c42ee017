"""SmolLM 3 (Bakouch et al. 2025): Llama with layers that know no positions, every fourth one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.sequential import Block
from anyformer.checkpoints.config import MISSING, SIZE, Config, Kind, one_of
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.grouped import ALL, SLIDING, attention, layer_types
from anyformer.models.head import TIES, language
from anyformer.models.llama import (
    ATTENTION,
    GATED,
    MIXER,
    NORMS,
    context,
    decoder,
    gated,
    layers,
    no_padding,
    rms,
    tensors,
    usual_size,
)
from anyformer.models.qwen import some, told
from anyformer.models.rope import rotary
from anyformer.positions.none import NoPosition
from anyformer.positions.rotary import Rotary
from anyformer.residuals.pre import Pre

POSITIONS = "body.blocks.{i}.mixer.position"


def _turns(position: Any) -> int:
    return {"rotary": 1, "none": 0}[position["kind"]]


# the key's name says the opposite
TURNS: Kind[int] = Kind("1 where positions are known, or 0", one_of({1: 1, 0: 0}).read, _turns)


def rotation(c: Config, longest: int | None, count: int) -> Rotary:
    """That of the layers that have one."""
    kinds = [c.kind(POSITIONS.format(i=index)) for index in range(count)]
    if kinds[0] is not None and "rotary" not in kinds:
        return Rotary()  # written backwards, and nothing turns
    at = kinds.index("rotary") if "rotary" in kinds else 0
    return rotary(c, POSITIONS.format(i=at), longest, 2_000_000.0)


class SmolLM3(ModelType):
    """SmolLM 3, Llama with layers that know no positions (Bakouch et al. 2025)."""

    classes = ("SmolLM3ForCausalLM", "SmolLM3Model", "SmolLM3ForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        no_padding(c)
        c.ignore("max_window_layers")  # which nothing reads
        longest, norm, count, used = context(c, 32_768), rms(c), layers(c), some(c)
        turn = rotation(c, longest, count)
        period = c.given("no_rope_layer_interval", SIZE, 4)
        turns = c.each("no_rope_layers", TURNS, POSITIONS, count, [int(i % period != 0) for i in range(1, count + 1)])
        types = layer_types(c, [SLIDING if used and not turned else ALL for turned in turns])
        mixer = attention(c, MIXER, turn, kv_heads=4, bias=False, sizes=usual_size(c))
        ff, residual = gated(c, bias=False), Pre(norm=norm)
        blocks = [
            Block(
                mixer=replace(mixer, pattern=seen, position=turn if turned else NoPosition()), ff=ff, residual=residual
            )
            for seen, turned in zip(told(c, used, types, MISSING), turns, strict=True)
        ]
        return decoder(c, longest, blocks, norm, language(c, name, tied=True))

    def names(self, spec: ModelSpec) -> Names:
        return tensors({**NORMS, **ATTENTION, **GATED})
