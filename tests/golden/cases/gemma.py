"""Gemma 1, 2 and 3."""

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
    "hidden_activation": "gelu",
}
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}}
SECOND = {
    **SMALL,
    **THETA,
    "attention_bias": True,
    "query_pre_attn_scalar": 5,
    "sliding_window": 4,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 7.0,
}
SIGHT = {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}
UNBOUND = {"attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": False}
FIRST = {key: value for key, value in SMALL.items() if key != "hidden_activation"} | THETA
THIRD = {
    **SMALL,
    "attention_bias": True,
    "query_pre_attn_scalar": 5,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 57.0},
        "full_attention": {"rope_type": "linear", "factor": 2.5, "rope_theta": 123.0},
    },
}

CASES = (
    Case("gemma", "GemmaForCausalLM", {**FIRST, "hidden_act": "gelu", "attention_bias": True}, TEXT),
    Case("gemma untied", "GemmaForCausalLM", {**FIRST, "hidden_act": "silu", "tie_word_embeddings": False}, TEXT),
    Case("gemma3_text", "Gemma3ForCausalLM", THIRD, TEXT),
    Case("gemma3_text both ways", "Gemma3TextModel", {**THIRD, "use_bidirectional_attention": True}, TEXT, whole=True),
    Case("gemma3_text capped", "Gemma3ForCausalLM", {**THIRD, "final_logit_softcapping": 7.0}, TEXT),
    Case("gemma2", "Gemma2ForCausalLM", SECOND, TEXT),
    Case("gemma2 types", "Gemma2ForCausalLM", {**SECOND, **SIGHT, "tie_word_embeddings": False}, TEXT),
    Case("gemma2 unbound", "Gemma2ForCausalLM", {**SECOND, **UNBOUND, "hidden_activation": "silu"}, TEXT),
    Case("gemma2 bare", "Gemma2Model", {**SECOND, "layer_types": ["full_attention"] * 3}, TEXT),
)
