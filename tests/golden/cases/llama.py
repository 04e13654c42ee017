"""Llama and its kin."""

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
)
