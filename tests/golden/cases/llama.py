"""Llama and its kin."""

from typing import Any

from golden.published import TEXT, Case

SMALL = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
    "rms_norm_eps": 0.03,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 123.0},
}
SCALINGS = {
    "linear": {"factor": 2.5},
    "dynamic": {"factor": 1.7},
    "yarn": {"factor": 3.0, "original_max_position_embeddings": 20, "beta_fast": 5.0, "beta_slow": 0.7},
    "llama3": {
        "factor": 3.0,
        "original_max_position_embeddings": 20,
        "low_freq_factor": 1.2,
        "high_freq_factor": 2.1,
    },
    "longrope": {
        "short_factor": [1.0, 1.2, 1.5, 1.9, 2.4],
        "long_factor": [1.1, 2.2, 3.3, 4.4, 5.5],
        "original_max_position_embeddings": 20,
    },
}

NARROW = {key: value for key, value in SMALL.items() if key != "head_dim"}  # heads of 4 channels
CENTRED = {key: value for key, value in NARROW.items() if key != "rms_norm_eps"}
NO_PAD = {"pad_token_id": None}  # which is outside the vocabulary by default
TIED = {"tie_word_embeddings": True}
SLIDING, FULL = "sliding_attention", "full_attention"
SOME = {"use_sliding_window": True, "sliding_window": 4}


def turned(share: float, width: int) -> dict[str, Any]:
    """Heads of another size, of whose channels a share turns."""
    rope = {"rope_type": "default", "rope_theta": 123.0, "partial_rotary_factor": share}
    return {"hidden_size": width, "rope_parameters": rope}


PHI = {**CENTRED, **turned(0.75, 48), "layer_norm_eps": 0.03, "num_hidden_layers": 2}
PHI3 = {**NARROW, **NO_PAD, **turned(0.5, 48), "num_hidden_layers": 2, "sliding_window": None}
LONG = {
    "hidden_size": 60,
    "original_max_position_embeddings": 20,
    "rope_parameters": {**SCALINGS["longrope"], "rope_type": "longrope", "rope_theta": 123.0},
}
STABLE = {**PHI, "num_key_value_heads": 3}
STARS = {**CENTRED, "norm_epsilon": 0.03, "num_hidden_layers": 2}
SMOL = {**NARROW, **NO_PAD, "num_hidden_layers": 4}
FACTORS = {
    "embedding_multiplier": 2.3,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.4,
    "logits_scaling": 3.7,
}

CASES = (
    Case("llama", "LlamaForCausalLM", {**SMALL, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}, TEXT),
    Case("llama tied", "LlamaForCausalLM", {**SMALL, "tie_word_embeddings": True, "hidden_act": "gelu_new"}, TEXT),
    Case("llama bare", "LlamaModel", SMALL, TEXT),
    *(
        Case(
            f"llama {kind}",
            "LlamaForCausalLM",
            {**SMALL, "rope_parameters": {"rope_type": kind, "rope_theta": 123.0, **scaling}},
            TEXT,
        )
        for kind, scaling in SCALINGS.items()
    ),
    Case("mistral", "MistralForCausalLM", {**SMALL, "sliding_window": 4, "hidden_act": "gelu"}, TEXT),
    Case("mistral tied", "MistralForCausalLM", {**NARROW, **TIED, "sliding_window": None}, TEXT),
    Case("mistral bare", "MistralModel", {**SMALL, "sliding_window": 6}, TEXT),
    Case("qwen2", "Qwen2ForCausalLM", {**NARROW, "sliding_window": 4, "hidden_act": "gelu_new"}, TEXT),
    Case("qwen2 windows", "Qwen2ForCausalLM", {**SMALL, **SOME, "max_window_layers": 1}, TEXT),
    Case("qwen2 types", "Qwen2ForCausalLM", {**NARROW, **SOME, **TIED, "layer_types": [SLIDING, FULL, SLIDING]}, TEXT),
    Case("qwen2 bare", "Qwen2Model", NARROW, TEXT),
    Case("qwen3", "Qwen3ForCausalLM", {**SMALL, "attention_bias": True, "hidden_act": "relu"}, TEXT),
    Case("qwen3 windows", "Qwen3ForCausalLM", {**SMALL, **SOME, **TIED, "max_window_layers": 2}, TEXT),
    Case("qwen3 bare", "Qwen3Model", {**SMALL, "head_dim": 4, "layer_types": [FULL] * 3}, TEXT),
    Case("phi", "PhiForCausalLM", {**PHI, "qk_layernorm": True, "hidden_act": "relu"}, TEXT),
    Case("phi tied", "PhiForCausalLM", {**PHI, **TIED, "num_key_value_heads": None}, TEXT),
    Case("phi bare", "PhiModel", {**PHI, **turned(0.5, 48)}, TEXT),
    Case("phi3", "Phi3ForCausalLM", {**PHI3, "sliding_window": 4, "hidden_act": "gelu"}, TEXT),
    Case("phi3 longrope", "Phi3ForCausalLM", {**PHI3, **LONG, **TIED}, TEXT),
    Case("phi3 bare", "Phi3Model", {**PHI3, "num_key_value_heads": None}, TEXT),
    Case("stablelm", "StableLmForCausalLM", {**STABLE, "use_qkv_bias": True, "qk_layernorm": True}, TEXT),
    Case("stablelm parallel", "StableLmForCausalLM", {**STABLE, "use_parallel_residual": True}, TEXT),
    Case("stablelm bare", "StableLmModel", {**STABLE, "num_key_value_heads": 6, "hidden_act": "gelu"}, TEXT),
    Case("olmo2", "Olmo2ForCausalLM", {**SMALL, "attention_bias": True, "hidden_act": "gelu"}, TEXT),
    Case("olmo2 tied", "Olmo2ForCausalLM", {**NARROW, **TIED}, TEXT),
    Case("olmo2 bare", "Olmo2Model", NARROW, TEXT),
    Case("starcoder2", "Starcoder2ForCausalLM", {**STARS, "sliding_window": 4, "hidden_act": "relu"}, TEXT),
    Case("starcoder2 tied", "Starcoder2ForCausalLM", {**STARS, **TIED, "use_bias": False, "head_dim": 10}, TEXT),
    Case("starcoder2 bare", "Starcoder2Model", {**STARS, "num_key_value_heads": 6}, TEXT),
    Case("smollm3", "SmolLM3ForCausalLM", {**SMOL, "attention_bias": True, "no_rope_layers": [0, 1, 1, 0]}, TEXT),
    Case("smollm3 windows", "SmolLM3ForCausalLM", {**SMOL, **SOME, **TIED, "no_rope_layer_interval": 2}, TEXT),
    Case("smollm3 none", "SmolLM3ForCausalLM", {**SMOL, "no_rope_layer_interval": 1, "mlp_bias": True}, TEXT),
    Case("smollm3 bare", "SmolLM3Model", {**SMOL, "head_dim": 10, "hidden_act": "gelu"}, TEXT),
    Case("granite", "GraniteForCausalLM", {**SMALL, **FACTORS, "attention_bias": True, "mlp_bias": True}, TEXT),
    Case("granite tied", "GraniteForCausalLM", {**NARROW, **FACTORS, **TIED, "hidden_act": "gelu"}, TEXT),
    Case("granite bare", "GraniteModel", {**NARROW, **FACTORS}, TEXT),
)
