"""Configs of Llama's kin: what a missing key means, older forms, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import Inexpressible
from anyformer.core.errors import InputError
from anyformer.core.spec import ModelSpec
from anyformer.models.published import declared, model_type

FEW = {
    "vocab_size": 61,
    "hidden_size": 128,
    "intermediate_size": 36,
    "num_hidden_layers": 5,
    "num_attention_heads": 32,
}
DEEP = {"num_hidden_layers": 30}  # Qwen's windows begin in layer 28, where nothing is said
SCALED = {"type": "su", "short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0]}


def read(kind: str, **more: Any) -> Decoder:
    spec = declared({"model_type": kind, **FEW, **more}, "here")
    assert isinstance(spec, Decoder)
    return spec


def body(spec: Decoder) -> Stack:
    assert isinstance(spec.body, Stack)
    return spec.body


def seen(spec: Decoder) -> list[str]:
    """What each layer sees."""
    return [block["mixer"]["pattern"] for block in body(spec).to_dict()["blocks"]]


def turned(spec: Decoder) -> list[bool]:
    """Which layers know positions."""
    return [block["mixer"]["position"]["kind"] == "rotary" for block in spec.body.to_dict()["blocks"]]


def told(spec: ModelSpec) -> dict[str, Any]:
    """A declaration with what is usual told in numbers, as the reference fills it in."""
    tree = spec.to_dict()
    for block in tree["body"]["blocks"]:
        mixer = block["mixer"]
        mixer["kv_heads"] = mixer["kv_heads"] or mixer["heads"]
        mixer["head_size"] = mixer["head_size"] or tree["width"] // mixer["heads"]
    return tree


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("mistral", {}),
        ("qwen2", {"use_sliding_window": True, **DEEP}),
        ("qwen3", {"use_sliding_window": True, **DEEP}),
        ("phi", {}),
        ("phi3", {}),
        ("stablelm", {"hidden_size": 256}),
        ("olmo2", {}),
        ("starcoder2", {}),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 5}),
        ("granite", {}),
    ],
)
def test_a_missing_key_means_what_it_means_in_the_reference(kind: str, more: dict[str, Any]) -> None:
    made = pytest.importorskip("transformers").AutoConfig.for_model(kind, **FEW | more)
    there = declared(json.loads(made.to_json_string(use_diff=False)), "there")
    assert told(read(kind, **more)) == told(there)


def test_older_forms() -> None:
    scaled = {**SCALED, "type": "longrope", "original_max_position_embeddings": 4096}
    beside = {"max_position_embeddings": 8192, "original_max_position_embeddings": 4096}
    old = read("phi3", **beside, rope_theta=7.0, rope_scaling=SCALED)
    assert old == read("phi3", max_position_embeddings=8192, rope_parameters={"rope_theta": 7.0, **scaled})
    assert read("phi", partial_rotary_factor=1.0) == read("phi", rope_parameters={"partial_rotary_factor": 1.0})


def test_windows_that_are_not_used() -> None:
    assert set(seen(read("qwen2", sliding_window=5, max_window_layers=3))) == {"causal"}
    assert set(seen(read("qwen2", sliding_window=None, use_sliding_window=True))) == {"causal"}
    assert set(seen(read("mistral", sliding_window=None))) == {"causal"}


def test_layers_that_have_a_window() -> None:
    window = "causal & window(5)"
    used = {"use_sliding_window": True, "sliding_window": 5}
    assert seen(read("qwen2", **used, max_window_layers=3)) == ["causal"] * 3 + [window] * 2
    smol = read("smollm3", **used)
    assert turned(smol) == [number % 4 != 0 for number in range(1, 6)]
    assert seen(smol) == ["causal" if turns else window for turns in turned(smol)]


def test_readers_that_only_know_the_first_windowed_layer() -> None:
    spec = read("qwen3", use_sliding_window=True, sliding_window=5, max_window_layers=2)
    written = model_type("qwen3", "here").write("qwen3", spec)
    assert (written["use_sliding_window"], written["sliding_window"], written["max_window_layers"]) == (True, 5, 2)


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("qwen2", {"layer_types": ["sliding_attention"] * 5}, "use_sliding_window is false"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 5}, "full_attention or sliding_attention"),
        ("smollm3", {"no_rope_layers": [2] * 5}, "1 where positions are known, or 0"),
        ("smollm3", {"use_sliding_window": True}, "sliding_window is missing"),
        ("stablelm", {"hidden_dropout": 0.1}, "hidden_dropout"),
        ("phi", {"head_dim": 8}, "head_dim"),
        ("phi3", {"rope_scaling": {**SCALED, "original_max_position_embeddings": 9}}, "they should be the same"),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "longrope alone"),
        ("phi3", {"attention_bias": True}, "attention_bias"),
        ("granite", {"logits_scaling": 0}, "logits_scaling should be a number above 0"),
    ],
)
def test_what_is_refused(kind: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, Inexpressible), match=message):
        read(kind, **more)


def test_what_cannot_be_written() -> None:
    spec = read("mistral", sliding_window=5)
    with pytest.raises(Inexpressible, match="pattern"):
        model_type("llama", "here").write("llama", spec)
    first, second = (body(read("mistral", sliding_window=size)) for size in (5, 6))
    mixed = replace(spec, body=replace(second, blocks=(first.blocks[0], *second.blocks[1:])))
    with pytest.raises(Inexpressible, match=r"blocks\.1\.mixer\.pattern"):
        model_type("mistral", "here").write("mistral", mixed)
