"""Gemma (2024), Gemma 2 and 3: Llama's kin with scaled embeddings and norms that are counted from 1.

Gemma 2 has a norm on either side of each part, windows in every other layer, and bounds on scores and logits. Gemma 3
normalises queries and keys instead of bounding scores, and its windows have a rate of rotation of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, POSITIVE, SIZE, Config, Kind, or_none
from anyformer.checkpoints.names import Names
from anyformer.core.errors import InputError
from anyformer.core.spec import HeadSpec, ModelSpec
from anyformer.embeddings.tokens import Tokens
from anyformer.feedforward.activations import Activation
from anyformer.feedforward.gated import Gated
from anyformer.heads.capped import Capped
from anyformer.models.base import ModelType
from anyformer.models.grouped import ALL, MIXER_OF, SLIDING, attention, every, layer_types, patterns
from anyformer.models.head import TIES, language, speaks
from anyformer.models.llama import FF, MIXER, Llama
from anyformer.models.rope import older, rotary, scaling
from anyformer.norms.rms_offset import OffsetRMSNorm
from anyformer.positions.rotary import Rotary
from anyformer.residuals.pre import Pre
from anyformer.residuals.sandwich import Sandwich

HEAD_SIZE = 256


def _score(scale: float) -> int:
    size = round(scale**-2)
    if size**-0.5 != scale:
        raise ValueError
    return size


# the scale of scores, told as the head size that it would be usual for
SCORE: Kind[float] = Kind(SIZE.what, lambda size: SIZE.read(size) ** -0.5, _score)


def _first(name: str) -> Activation:
    return "gelu_tanh" if name == "gelu" else ACTIVATIONS.read(name)


def _first_written(activation: Activation) -> str:
    if activation == "gelu":
        raise ValueError
    return ACTIVATIONS.write(activation)


# the first configs say gelu and mean its approximation
FIRST_ACTIVATIONS: Kind[Activation] = Kind(ACTIVATIONS.what, _first, _first_written)
# some windows look both ways (EmbeddingGemma)
BOTH: Kind[bool] = Kind(FLAG.what, lambda value: FLAG.read(value or False), lambda text: "causal" not in text)


def norm(c: Config) -> OffsetRMSNorm:
    """The one norm that stands everywhere."""
    return OffsetRMSNorm(eps=c.take("rms_norm_eps", POSITIVE, "body.norm.eps", 1e-6))


def feedforward(c: Config) -> Gated:
    """A gated unit without biases."""
    c.ignore("hidden_act")  # which nothing reads beside the other one
    return Gated(
        hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
        activation=c.take("hidden_activation", ACTIVATIONS, f"{FF}.activation", "gelu_pytorch_tanh"),
    )


def head(c: Config, cap: float | None, name: str) -> HeadSpec | None:
    """The embedding read backwards, its logits perhaps bounded. cap: where the config does not say it."""
    if not speaks(name):
        c.ignore("final_logit_softcapping")
    elif c.kind("head") in (None, "capped"):
        cap = c.take("final_logit_softcapping", or_none(POSITIVE), "head.cap", cap)
        if cap is not None:
            decoder = language(c, name, tied=True, at="head.decoder")
            assert decoder is not None
            return Capped(decoder=decoder, cap=cap)
    else:
        c.expect("final_logit_softcapping", None)
    return language(c, name, tied=True)


def decoder(c: Config, context: int, blocks: Sequence[Block], last: OffsetRMSNorm, head: HeadSpec | None) -> Decoder:
    """The blocks on scaled embeddings."""
    width = c.take("hidden_size", SIZE, "width")
    return Decoder(
        vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
        width=width,
        context=context,
        embedding=Tokens(scale=sqrt(width)),
        body=Stack(blocks=tuple(blocks), norm=last),
        head=head,
    )


def names(spec: ModelSpec) -> Names:
    """With a norm on either side of each part."""
    assert isinstance(spec, Decoder)
    theirs, ours = "model.layers.{i}", "body.blocks.{i}.residual"
    return {
        **Llama().names(spec),
        "lm_head.weight": f"head.{'decoder.' if isinstance(spec.head, Capped) else ''}out.weight",
        f"{theirs}.post_attention_layernorm.weight": f"{ours}.after.mixer.weight",
        f"{theirs}.pre_feedforward_layernorm.weight": f"{ours}.norm.ff.weight",
        f"{theirs}.post_feedforward_layernorm.weight": f"{ours}.after.ff.weight",
    }


class Gemma(ModelType):
    """Gemma (Gemma Team 2024): its head is not bounded, and its residual as Llama's."""

    classes = ("GemmaForCausalLM", "GemmaModel", "GemmaForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        context = c.take("max_position_embeddings", SIZE, "context", 8192)
        count, last = c.count("num_hidden_layers", "body.blocks"), norm(c)
        c.expect("use_bidirectional_attention", False, None, default=None)
        c.ignore("hidden_activation")  # which nothing reads beside the other one
        block = Block(
            mixer=attention(c, MIXER, rotary(c, f"{MIXER}.position", context), kv_heads=16, size=HEAD_SIZE, bias=False),
            ff=Gated(
                hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
                activation=c.take("hidden_act", FIRST_ACTIVATIONS, f"{FF}.activation", "gelu_pytorch_tanh"),
            ),
            residual=Pre(norm=last),
        )
        return decoder(c, context, (block,) * count, last, language(c, name, tied=True))

    def names(self, spec: ModelSpec) -> Names:
        return Llama().names(spec)


class Gemma2(ModelType):
    """Gemma 2: norms on either side of each part, bounded scores (Gemma Team 2024)."""

    classes = ("Gemma2ForCausalLM", "Gemma2Model", "Gemma2ForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        context = c.take("max_position_embeddings", SIZE, "context", 8192)
        count, last = c.count("num_hidden_layers", "body.blocks"), norm(c)
        c.expect("use_bidirectional_attention", False, None, default=None)
        turn = rotary(c, f"{MIXER}.position", context)
        mixer = replace(
            attention(c, MIXER, turn, kv_heads=4, size=HEAD_SIZE, bias=False),
            scale=c.take("query_pre_attn_scalar", SCORE, f"{MIXER}.scale", HEAD_SIZE),
            softcap=c.take("attn_logit_softcapping", or_none(POSITIVE), f"{MIXER}.softcap", 50.0),
        )
        ff, residual = feedforward(c), Sandwich(norm=last, after=last)
        c.said({"sliding_window_size": 4096})  # beside the key that is read
        seen = patterns(c, layer_types(c, every(2, count)), 4096)
        blocks = [Block(mixer=replace(mixer, pattern=one), ff=ff, residual=residual) for one in seen]
        return decoder(c, context, blocks, last, head(c, 30.0, name))

    def names(self, spec: ModelSpec) -> Names:
        return names(spec)


class Gemma3Text(ModelType):
    """Gemma 3 (Gemma Team 2025), its text side; EmbeddingGemma (2025) sees both ways."""

    classes = ("Gemma3ForCausalLM", "Gemma3TextModel", "Gemma3TextForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def read(self, tree: Mapping[str, Any], where: str, allow: Collection[str] = ()) -> ModelSpec:
        return super().read(one_rope(tree, where), where, allow)

    def declare(self, c: Config, name: str) -> Decoder:
        context = c.take("max_position_embeddings", SIZE, "context", 131_072)
        count, last = c.count("num_hidden_layers", "body.blocks"), norm(c)
        types = layer_types(c, every(c.given("sliding_window_pattern", SIZE, 6), count))
        c.ignore("_sliding_window_pattern")
        both = c.take("use_bidirectional_attention", BOTH, f"{MIXER}.pattern", False)
        c.expect("attn_logit_softcapping", None, default=None)  # which nothing reads
        mixer = replace(
            attention(c, MIXER, Rotary(), kv_heads=4, size=HEAD_SIZE, bias=False),
            scale=c.take("query_pre_attn_scalar", SCORE, f"{MIXER}.scale", HEAD_SIZE),
            qk_norm=last,
        )
        ff, residual = feedforward(c), Sandwich(norm=last, after=last)
        turns = positions(c, types, context)
        blocks = [
            Block(mixer=replace(mixer, pattern=seen, position=turns[kind]), ff=ff, residual=residual)
            for kind, seen in zip(types, patterns(c, types, 4096, both=both), strict=True)
        ]
        return decoder(c, context, blocks, last, head(c, None, name))

    def names(self, spec: ModelSpec) -> Names:
        norms = {f"model.layers.{{i}}.self_attn.{part}.weight": f"body.blocks.{{i}}.mixer.{part}.weight" for part in QK}
        return {**names(spec), **norms}


QK = ("q_norm", "k_norm")


def positions(c: Config, types: Sequence[str], context: int) -> dict[str, Rotary]:
    """How each type of layer turns; only those that see all are scaled."""
    turns = {}
    for kind, key, theta in ((ALL, "rope_theta", 1_000_000.0), (SLIDING, "rope_local_base_freq", 10_000.0)):
        if kind not in types:
            c.ignore(key, *(("rope_scaling",) if kind == ALL else ()))
            continue
        at = f"{MIXER_OF.format(i=types.index(kind))}.position"
        rates = scaling(c, f"{at}.scaling", context) if kind == ALL else None
        turns[kind] = Rotary(theta=c.take(key, POSITIVE, f"{at}.theta", theta), scaling=rates)
    return turns


def one_rope(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A config that has rotary keys for each type of layer, with them in the older form."""
    new = tree.get("rope_parameters")
    if not isinstance(new, dict) or not {ALL, SLIDING} & new.keys():
        return dict(tree)
    made = {key: value for key, value in tree.items() if key != "rope_parameters"}
    wide, near = (new.get(kind) or {} for kind in (ALL, SLIDING))
    if new.keys() - {ALL, SLIDING} or near.keys() - {"rope_type", "rope_theta"} or near.get("rope_type") not in USUAL:
        raise InputError(f"{where}: rope_parameters: {SLIDING} should have a rope_theta and no more, {ALL} what it has")
    if "rope_theta" in near:
        made["rope_local_base_freq"] = near["rope_theta"]
    return older({**made, "rope_parameters": wide})


USUAL = (None, "default")
