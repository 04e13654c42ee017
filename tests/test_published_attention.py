"""Softmax attention with its options against the attention modules of transformers that need them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracles.mixers import assert_same, mask
from oracles.published import config, exact, modeling, redrawn
from torch import Tensor
from torch.testing import assert_close

from anyformer.core.build import fill_all
from anyformer.core.context import Where
from anyformer.core.layer import Layer
from anyformer.core.roles import Mixer, Position
from anyformer.core.spec import Site, from_dict
from anyformer.positions.t5 import T5, bucket

B, T, C, THETA = 2, 7, 24, 70.0
X = torch.randn(B, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NAMES = {f"{name}_proj": name for name in "qkvo"}
GROUPED = {"hidden_size": C, "num_attention_heads": 6, "num_key_value_heads": 2}
ROPE = {"rope_type": "default", "rope_theta": THETA}


def rotary(size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1, T, size), each rate twice."""
    phase = torch.arange(T)[:, None] * THETA ** (-torch.arange(0, size, 2).double() / size)
    phase = torch.cat([phase, phase], -1)[None]
    return phase.cos(), phase.sin()


@dataclass
class Case:
    """module: makes theirs. fields: of ours. call: theirs, on x and a mask. names: beside q_proj and its like."""

    module: Callable[[], Any]
    fields: dict[str, Any]
    call: Callable[[Any, Tensor, Tensor], Any]
    names: dict[str, str] | None = None
    window: int | None = None


def of(name: str, attention: str, config_name: str, **fields: Any) -> Callable[[], Any]:
    return lambda: getattr(modeling(name), attention)(config(config_name, **fields), 0)


def gpt_neo() -> Any:
    types = {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 3}
    made = config("GPTNeoConfig", hidden_size=C, num_heads=4, max_position_embeddings=16, **types)
    return modeling("gpt_neo").GPTNeoSelfAttention(made, "local", 1)


def gptj() -> Any:
    made = modeling("gptj").GPTJAttention(config("GPTJConfig", n_embd=C, n_head=3, rotary_dim=6, n_positions=16), 0)
    phase = torch.arange(16)[:, None] * 10_000.0 ** (-torch.arange(0, 6, 2).double() / 6)
    made.embed_positions = torch.cat([phase.sin(), phase.cos()], -1)  # theirs is made in float32
    return made


def t5(decoder: bool) -> Callable[[], Any]:
    sizes = {"d_model": C, "d_kv": 5, "num_heads": 3, "is_decoder": decoder}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}
    return lambda: modeling("t5").T5Attention(config("T5Config", **sizes, **buckets), True, 0)


def turning(size: int) -> Callable[[Any, Tensor, Tensor], Any]:
    return lambda module, x, seen: module(x, position_embeddings=rotary(size), attention_mask=seen)[0]


def turned(channels: int | None = None, pairs: str = "halves") -> dict[str, Any]:
    return {"kind": "rotary", "theta": THETA, "channels": channels, "pairs": pairs}


OURS = {"heads": 6, "kv_heads": 2}
PARTIAL = {**GROUPED, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}, "qk_layernorm": True}
LAYER = {"kind": "layer", "eps": 0.3}
CASES = {
    "gemma2": Case(
        of(
            *("gemma2", "Gemma2Attention", "Gemma2Config"),
            **{**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 3, "attn_logit_softcapping": 1.3},
        ),
        {**OURS, "head_size": 8, "position": turned(), "scale": 3**-0.5, "softcap": 1.3},
        turning(8),
    ),
    "gemma3": Case(
        of(
            *("gemma3", "Gemma3Attention", "Gemma3TextConfig"),
            **{**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 3, "rms_norm_eps": 0.3},
        ),
        {
            **OURS,
            "head_size": 8,
            "position": turned(),
            "scale": 3**-0.5,
            "qk_norm": {"kind": "rms_offset", "eps": 0.3},
        },
        turning(8),
        {"q_norm": "q_norm", "k_norm": "k_norm"},
    ),
    "olmo2": Case(
        of("olmo2", "Olmo2Attention", "Olmo2Config", **GROUPED, rms_norm_eps=0.3),
        {**OURS, "position": turned(), "qk_norm": {"kind": "rms", "eps": 0.3}, "qk_norm_over": "all_heads"},
        turning(4),
        {"q_norm": "q_norm", "k_norm": "k_norm"},
    ),
    "stablelm": Case(
        of("stablelm", "StableLmAttention", "StableLmConfig", **PARTIAL, layer_norm_eps=0.3, use_qkv_bias=True),
        {
            **OURS,
            "position": turned(2),
            "bias": True,
            "out_bias": False,
            "qk_norm": {**LAYER, "bias": False},
            "qk_norm_over": "each_head",
        },
        turning(2),
        {"q_layernorm.norms": "q_norm", "k_layernorm.norms": "k_norm"},
    ),
    "phi": Case(
        of("phi", "PhiAttention", "PhiConfig", **PARTIAL, layer_norm_eps=0.3),
        {**OURS, "position": turned(2), "bias": True, "qk_norm": LAYER},
        turning(2),
        {"dense": "o", "q_layernorm": "q_norm", "k_layernorm": "k_norm"},
    ),
    "granite": Case(
        of("granite", "GraniteAttention", "GraniteConfig", **GROUPED, attention_multiplier=0.7, attention_bias=True),
        {**OURS, "position": turned(), "bias": True, "scale": 0.7},
        turning(4),
    ),
    "gpt_neo": Case(
        gpt_neo,
        {"heads": 4, "scale": 1.0, "out_bias": True, "pattern": "causal & window(3)"},
        lambda module, x, seen: module(x)[0],
        {"out_proj": "o"},
        3,
    ),
    "gptj": Case(
        gptj,
        {"heads": 3, "position": {**turned(6, "neighbours"), "theta": 10_000.0}},
        lambda module, x, seen: module(x, attention_mask=seen, position_ids=torch.arange(T).expand(B, T))[0],
        {"out_proj": "o"},
    ),
    "t5": Case(
        t5(decoder=False),
        {"heads": 3, "head_size": 5, "scale": 1.0, "pattern": "full"}
        | {"position": {"kind": "t5", "buckets": 8, "furthest": 6, "both_ways": True}},
        lambda module, x, seen: module(x)[0],
        {"relative_attention_bias": "position", **{name: name for name in "qkvo"}},
    ),
    "t5-decoder": Case(
        t5(decoder=True),
        {"heads": 3, "head_size": 5, "scale": 1.0, "position": {"kind": "t5", "buckets": 8, "furthest": 6}},
        lambda module, x, seen: module(x, mask=seen)[0],
        {"relative_attention_bias": "position", **{name: name for name in "qkvo"}},
    ),
}


def mixer(**fields: Any) -> Layer:
    return from_dict(Mixer, {"kind": "softmax", **fields}).build(Site("mixer", C)).double()


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_published_attention(name: str) -> None:
    """Outputs, and the gradients of a sum of them by every weight and by the input."""
    case = CASES[name]
    with exact():
        theirs = redrawn(case.module())
    ours, seen = mixer(**case.fields), mask(T, case.window)
    assert_same(theirs, ours, {**(case.names or {}), **NAMES}, X, lambda x: case.call(theirs, x, seen))


# terms of scores that whole modules only add


def term(kind: str, heads: int, **fields: Any) -> Tensor:
    """(H, T, S) for 300 keys, the last T of which ask."""
    part = from_dict(Position, {"kind": kind, **fields}).build(Site("here", C, heads=heads)).double()
    fill_all(part, 0)
    where = Where.start(1, 300)
    asking = Where(where.time[:, -T:], where.coords[:, -T:], {})
    return part(asking, where)[0]


def published(name: str, heads: int) -> Tensor:
    """(H, 1, S): what does not depend on the query."""
    with exact():
        return modeling(name).build_alibi_tensor(torch.ones(1, 300).long(), heads, torch.float64)


def seen_alike(ours: Tensor, theirs: Tensor) -> None:
    """Two terms of scores (H, T, S) give every query the same softmax over the keys until then."""
    future = torch.arange(300) > torch.arange(300 - T, 300)[:, None]
    ours, theirs = (x.expand(-1, T, -1).masked_fill(future, -torch.inf).log_softmax(-1).exp() for x in (ours, theirs))
    assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 8, 12, 20, 71, 112])
def test_alibi_is_that_of_bloom(heads: int) -> None:
    seen_alike(term("alibi", heads), published("bloom", heads))


@pytest.mark.parametrize("heads", [1, 3, 8, 12, 71])
def test_rounded_alibi_is_that_of_falcon(heads: int) -> None:
    """It is added before the scores are divided by the root of the head size."""
    theirs = published("falcon", heads) / 8**0.5
    seen_alike(term("alibi_rounded", heads, scale=8**-0.5), theirs)
    with pytest.raises(AssertionError):  # what is not rounded is not that
        seen_alike(term("alibi", heads) / 8**0.5, theirs)


def test_relative_buckets_are_those_of_mpnet() -> None:
    ahead = torch.arange(-300, 301)
    theirs = modeling("mpnet").MPNetEncoder.relative_position_bucket(ahead)
    assert torch.equal(bucket(ahead, T5(both_ways=True)), theirs)
