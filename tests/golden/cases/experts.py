"""Models with experts."""

from golden.published import TEXT, Case

SMALL = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 0.03,
    "rope_parameters": {"rope_type": "default", "rope_theta": 123.0},
}
MIXTRAL = {
    **SMALL,
    "head_dim": 10,
    "intermediate_size": 14,
    "hidden_act": "gelu",
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "router_aux_loss_coef": 0.3,
}
QWEN = {
    **SMALL,
    "num_hidden_layers": 3,
    "head_dim": 10,
    "intermediate_size": 30,
    "moe_intermediate_size": 14,
    "hidden_act": "gelu_new",
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "attention_bias": True,
    "router_aux_loss_coef": 0.3,
}
YARN = {"rope_type": "yarn", "rope_theta": 123.0, "factor": 3.0, "original_max_position_embeddings": 20}
OSS = {
    **SMALL,
    "head_dim": 10,
    "intermediate_size": 14,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "swiglu_alpha": 1.3,
    "swiglu_limit": 1.1,
    "sliding_window": 4,
    "rope_parameters": {**YARN, "beta_fast": 5.0, "beta_slow": 0.7, "truncate": False},
}
DEEPSEEK = {
    **SMALL,
    "num_key_value_heads": 6,
    "intermediate_size": 30,
    "moe_intermediate_size": 6,
    "n_shared_experts": 2,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 1.7,
    "kv_lora_rank": 9,
    "q_lora_rank": 11,
    "qk_rope_head_dim": 6,
    "qk_nope_head_dim": 5,
    "v_head_dim": 7,
    "first_k_dense_replace": 1,
    "hidden_act": "gelu",
}
SHARP = {"rope_parameters": {**YARN, "mscale": 0.5, "mscale_all_dim": 0.7}}
PLAIN = {"q_lora_rank": None, "rope_interleave": False, "norm_topk_prob": False, "first_k_dense_replace": 0}

CASES = (
    Case("gpt_oss", "GptOssForCausalLM", OSS, TEXT),
    Case("gpt_oss bare", "GptOssModel", {**OSS, "attention_bias": False, "layer_types": ["full_attention"] * 2}, TEXT),
    Case("deepseek_v3", "DeepseekV3ForCausalLM", {**DEEPSEEK, **SHARP, "attention_bias": True}, TEXT),
    Case("deepseek_v3 plain", "DeepseekV3Model", {**DEEPSEEK, **PLAIN}, TEXT),
    Case("mixtral", "MixtralForCausalLM", MIXTRAL, TEXT),
    Case("mixtral window", "MixtralForCausalLM", {**MIXTRAL, "sliding_window": 4, "tie_word_embeddings": True}, TEXT),
    Case("mixtral bare", "MixtralModel", {**MIXTRAL, "head_dim": None, "num_experts_per_tok": 1}, TEXT),
    Case("qwen3_moe", "Qwen3MoeForCausalLM", {**QWEN, "mlp_only_layers": [1], "norm_topk_prob": True}, TEXT),
    Case("qwen3_moe window", "Qwen3MoeModel", {**QWEN, "use_sliding_window": True, "sliding_window": 4}, TEXT),
)
