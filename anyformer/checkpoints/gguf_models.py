"""Models in GGUF files, as Hugging Face has them, and back: an architecture is a table of keys and one of names.

Llama's queries and keys are turned by neighbours in a GGUF file, those of the others by halves, as here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyformer.checkpoints.config import FLAG, MISSING, POSITIVE, SIZE, Kind, Reading, one_of, or_none
from anyformer.checkpoints.foreign import Foreign, Lazy
from anyformer.checkpoints.gguf import Gguf, open_gguf
from anyformer.checkpoints.gguf_tokenizer import PREFIX, keys_of, tokenizer_of
from anyformer.checkpoints.pairs import to_halves, to_neighbours
from anyformer.core.errors import ConfigError, InputError

# the key in a GGUF file, below the architecture's name: (the key of a config, what it is)
KEYS: dict[str, tuple[str, Kind[Any]]] = {
    "block_count": ("num_hidden_layers", SIZE),
    "embedding_length": ("hidden_size", SIZE),
    "feed_forward_length": ("intermediate_size", SIZE),
    "attention.head_count": ("num_attention_heads", SIZE),
    "attention.head_count_kv": ("num_key_value_heads", SIZE),
    "attention.key_length": ("head_dim", SIZE),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", POSITIVE),
    "context_length": ("max_position_embeddings", SIZE),
    "rope.freq_base": ("rope_theta", POSITIVE),
}
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.{i}.attn_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "blk.{i}.ffn_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blk.{i}.attn_q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blk.{i}.attn_k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    **{
        f"blk.{{i}}.{theirs}.{side}": f"model.layers.{{i}}.{ours}.{side}"
        for side in ("weight", "bias")
        for theirs, ours in (
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        )
    },
}
ROPE_FREQS = "rope_freqs.weight"  # what the turns of each pair are divided by: Llama 3.1's long contexts
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
TEMPLATE = "tokenizer.chat_template"
THETA = 10_000.0
SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}


@dataclass(frozen=True)
class Turned:
    """Rows of queries or keys, turned by neighbours in the file."""

    heads: int

    def read(self, theirs: Tensor) -> Tensor:
        return to_halves(theirs, self.heads)

    def write(self, ours: Tensor) -> Tensor:
        return to_neighbours(ours, self.heads)


@dataclass(frozen=True)
class Raised:
    """Scales of norms, one more in the file."""

    def read(self, theirs: Tensor) -> Tensor:
        return theirs - 1

    def write(self, ours: Tensor) -> Tensor:
        return ours + 1


@dataclass(frozen=True)
class Architecture:
    """What is an architecture's own.

    kind: its model class. says: keys of a config that no key of the file says, with what they may be. flags: keys that
    are true where there is a tensor of that name. rule: by what the tensor of a name changes, for so many heads of
    queries and of keys. harmless: keys of a config that change nothing, given what it says.
    """

    kind: str
    says: Mapping[str, tuple[Any, ...]]
    flags: Mapping[str, str]
    rule: Callable[[str, int, int], Turned | Raised | None]
    harmless: tuple[str, ...] = ()


def _llama(name: str, heads: int, kv_heads: int) -> Turned | None:
    found = re.search(r"\.attn_([qk])\.", name)
    return found and Turned(heads if found[1] == "q" else kv_heads)


def _gemma(name: str, heads: int, kv_heads: int) -> Raised | None:
    return Raised() if name.endswith("norm.weight") else None


def _same(name: str, heads: int, kv_heads: int) -> None:
    return None


SILU = {"hidden_act": ("silu",)}
BIAS = {"attention_bias": "blk.0.attn_q.bias"}
NO_WINDOW = {"use_sliding_window": (False,)}
WINDOW = ("sliding_window", "max_window_layers", "layer_types")
GELU = {"hidden_act": ("gelu_pytorch_tanh", "gelu"), "use_bidirectional_attention": (None, False)}
ARCHITECTURES = {
    "llama": Architecture("LlamaForCausalLM", SILU, {**BIAS, "mlp_bias": "blk.0.ffn_up.bias"}, _llama),
    "qwen2": Architecture("Qwen2ForCausalLM", {**SILU, **NO_WINDOW}, {}, _same, WINDOW),
    "qwen3": Architecture("Qwen3ForCausalLM", {**SILU, **NO_WINDOW}, BIAS, _same, WINDOW),
    "gemma": Architecture("GemmaForCausalLM", GELU, BIAS, _gemma, ("hidden_activation",)),
}


def read_gguf(path: Path) -> Foreign:
    """The model of a file: its config, its tensors in float32, its tokenizer."""
    file = open_gguf(path)
    name = file.metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise InputError(f"{path}: its architecture is {name!r:.40}; those read are {', '.join(ARCHITECTURES)}")
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise InputError(f"{path}: is one part of several; join them with `llama-gguf-split --merge`")
    config = _config(file, name)
    tokenizer, template = tokenizer_of(file.metadata, str(path)), file.metadata.get(TEMPLATE)
    ids = {ours: file.metadata.get(f"{PREFIX}{theirs}_token_id") for theirs, ours in SPECIAL.items()}
    return Foreign(
        {**config, **{key: number for key, number in ids.items() if number is not None}},
        _tensors(file, ARCHITECTURES[name], config),
        tokenizer,
        template if isinstance(template, str) else None,
    )


def _config(file: Gguf, name: str) -> dict[str, Any]:
    values = {key.removeprefix(f"{name}."): value for key, value in file.metadata.items() if key.startswith(f"{name}.")}
    c, where = Reading(values, f"{file.path}: {name}"), file.path
    if "token_embd.weight" not in file.blocks:
        raise InputError(f"{where}: has no token_embd.weight: it holds no whole model")
    config: dict[str, Any] = {}
    for key, (theirs, kind) in KEYS.items():
        value = c.take(key, kind, "", _default(key, config.get("num_attention_heads"), config.get("hidden_size")))
        config[theirs] = _decimal(value) if type(value) is float else value
    words, size = file.blocks["token_embd.weight"].shape[0], config["head_dim"]
    for key, expected in (("attention.value_length", size), ("rope.dimension_count", size), ("vocab_size", words)):
        c.expect(key, expected, default=expected)
    for key in ("expert_count", "expert_used_count"):
        c.expect(key, 0, default=0)
    c.expect("attention.causal", True, default=True)
    architecture = ARCHITECTURES[name]
    config |= {
        "model_type": name,
        "architectures": [architecture.kind],
        "vocab_size": words,
        "tie_word_embeddings": "output.weight" not in file.blocks,
        "rope_scaling": _scaling(c, file, config),
        **{key: allowed[0] for key, allowed in architecture.says.items()},
        **{key: tensor in file.blocks for key, tensor in architecture.flags.items()},
    }
    c.done()
    return config


def _default(key: str, heads: int | None, width: int | None) -> Any:
    """Of a key that may be absent."""
    if key == "attention.key_length" and heads and width:
        return width // heads
    return {"attention.head_count_kv": heads, "rope.freq_base": THETA}.get(key, MISSING)


def _decimal(value: float) -> float:
    """1e-05 and not 9.999999747378752e-06: the shortest number that is the same in float32."""
    return float(str(np.float32(value)))


def _scaling(c: Reading, file: Gguf, config: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = c.given("rope.scaling.type", one_of({"none": None, "linear": "linear", "yarn": "yarn"}), None)
    c.ignore("rope.scaling.finetuned")
    made: dict[str, Any] | None = None
    if kind is not None:
        made = {"rope_type": kind, "factor": _decimal(c.take("rope.scaling.factor", POSITIVE, ""))}
    if made is not None and kind == "yarn":
        made["original_max_position_embeddings"] = c.take("rope.scaling.original_context_length", SIZE, "")
        for theirs, ours in YARN.items():
            if f"rope.scaling.{theirs}" in c.tree:
                made[ours] = _decimal(c.take(f"rope.scaling.{theirs}", POSITIVE, ""))
    if ROPE_FREQS not in file.blocks:
        return made
    slower = file.tensors[ROPE_FREQS]
    found = {"rope_type": "llama3", "factor": _decimal(float(slower.max())), **LLAMA3}
    known = slowed(found, config["rope_theta"], config["head_dim"])
    if made is not None or slower.shape != known.shape or not torch.allclose(slower, known, rtol=1e-4):
        raise InputError(f"{file.path}: its {ROPE_FREQS} are not Llama 3's, the only ones known")
    return found


def slowed(scaling: Mapping[str, Any], theta: float, size: int) -> Tensor:
    """What Llama 3.1 divides the turns of each pair by: slow ones by `factor`, quick ones by 1, those between by both.

    size: of a head.
    """
    turns = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size) / (2 * pi)  # per token
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    quick = ((turns * scaling["original_max_position_embeddings"] - low) / (high - low)).clamp(0, 1)
    return (1 / (quick + (1 - quick) / scaling["factor"])).float()


def _tensors(file: Gguf, architecture: Architecture, config: Mapping[str, Any]) -> Lazy:
    makers: dict[str, Callable[[], Tensor]] = {}
    for theirs, block in file.blocks.items():
        if theirs == ROPE_FREQS:
            continue
        if (ours := _renamed(theirs, NAMES)) is None:
            raise InputError(f"{file.path}: {theirs!r} is no tensor of {config['model_type']}'s")
        rule = architecture.rule(theirs, config["num_attention_heads"], config["num_key_value_heads"])
        if isinstance(rule, Turned) and block.shape[0] != rule.heads * config["head_dim"]:
            raise InputError(
                f"{file.path}: {theirs} has {block.shape[0]} rows, not those of {rule.heads} heads of "
                f"{config['head_dim']}"
            )
        makers[ours] = partial(_read, file, theirs, rule)
    return Lazy(makers)


def _read(file: Gguf, name: str, rule: Turned | Raised | None) -> Tensor:
    return file.tensors[name] if rule is None else rule.read(file.tensors[name])


def _renamed(name: str, names: Mapping[str, str]) -> str | None:
    """A name by a table of names with {i} for a layer's number."""
    number = re.search(r"(?<=\.)(0|[1-9][0-9]{0,4})(?=\.)", name)
    pattern = name if number is None else f"{name[: number.start()]}{{i}}{name[number.end() :]}"
    found = names.get(pattern)
    return found and (found if number is None else found.replace("{i}", number[0]))


@dataclass(frozen=True)
class Plan:
    """What a file is to hold. tensors: of its own names and in its own order of rows."""

    architecture: str
    metadata: Mapping[str, Any]
    tensors: Lazy


def plan(model: Foreign) -> Plan:
    """The keys and tensors of a model; a part of it that the file cannot say is refused by name."""
    name = model.config.get("model_type")
    if name not in ARCHITECTURES:
        raise ConfigError(f"no GGUF file is written of the model type {name!r}; those are {', '.join(ARCHITECTURES)}")
    c, architecture = Reading(model.config, "the config"), ARCHITECTURES[name]
    values: dict[str, Any] = {}
    for key, (theirs, kind) in KEYS.items():
        default = _default(key, values.get("attention.head_count"), values.get("embedding_length"))
        known = default is not MISSING
        values[key] = (c.take(theirs, or_none(kind), "", None) or default) if known else c.take(theirs, kind, "")
    size, words = values["attention.key_length"], c.take("vocab_size", SIZE, "")
    values |= {"attention.value_length": size, "rope.dimension_count": size, "vocab_size": words}
    tied = c.given("tie_word_embeddings", FLAG, name == "gemma")
    for key, allowed in architecture.says.items():
        c.expect(key, *allowed, default=allowed[0])
    c.ignore("attention_dropout", *architecture.flags, *architecture.harmless)
    scaling = c.part("rope_scaling", None)
    extra: dict[str, Callable[[], Tensor]] = {}
    if scaling is not None:
        kind = scaling.take("rope_type", one_of({kind: kind for kind in ("linear", "yarn", "llama3")}), "")
        factor = scaling.take("factor", POSITIVE, "")
        if kind == "llama3":
            numbers = {key: scaling.take(key, POSITIVE, "") for key in LLAMA3}
            extra[ROPE_FREQS] = partial(slowed, {"factor": factor, **numbers}, values["rope.freq_base"], size)
        else:
            values |= {"rope.scaling.type": kind, "rope.scaling.factor": factor}
        if kind == "yarn":
            values["rope.scaling.original_context_length"] = scaling.take("original_max_position_embeddings", SIZE, "")
            for theirs, ours in YARN.items():
                if ours in scaling.tree:
                    values[f"rope.scaling.{theirs}"] = scaling.take(ours, POSITIVE, "")
    c.done()
    metadata = {f"{name}.{key}": value for key, value in values.items()}
    if model.tokenizer is not None:
        metadata |= keys_of(model.tokenizer, words, model.config)
    if model.chat_template is not None:
        metadata[TEMPLATE] = model.chat_template
    back = {ours: theirs for theirs, ours in NAMES.items()}
    heads = values["attention.head_count"], values["attention.head_count_kv"]
    for ours in model.tensors:
        if tied and ours == "lm_head.weight":
            continue
        if (theirs := _renamed(ours, back)) is None:
            raise ConfigError(f"a GGUF file of {name}'s has no place for {ours}")
        extra[theirs] = partial(_written, model, ours, architecture.rule(theirs, *heads))
    return Plan(name, metadata, Lazy(extra))


def _written(model: Foreign, name: str, rule: Turned | Raised | None) -> Tensor:
    tensor = model.tensors[name].float()
    return tensor if rule is None else rule.write(tensor)
