"""GPT-2 and the decoders that came after it."""

from golden.published import TEXT, Case

GPT2 = {
    "vocab_size": 61,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 6,
    "n_positions": 20,
    "layer_norm_epsilon": 0.03,
}
NEO = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_layers": 3,
    "num_heads": 6,
    "max_position_embeddings": 20,
    "attention_types": [[["global", "local"], 1], [["local"], 1]],
    "window_size": 4,
    "layer_norm_epsilon": 0.03,
}
J = {**GPT2, "n_layer": 2, "n_head": 3, "rotary_dim": 6}
NEOX = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "max_position_embeddings": 20,
    "layer_norm_eps": 0.03,
    "rope_parameters": {"rope_type": "default", "rope_theta": 123.0, "partial_rotary_factor": 0.5},
}
OPT = {
    "vocab_size": 61,
    "hidden_size": 24,
    "ffn_dim": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 20,
}
OPT_350M = {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 10}
BLOOM = {"vocab_size": 61, "hidden_size": 24, "n_layer": 2, "n_head": 6, "layer_norm_epsilon": 0.03}
FALCON = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "layer_norm_epsilon": 0.03,
    "max_position_embeddings": 20,
    "ffn_hidden_size": 36,
    "rope_parameters": {"rope_type": "default", "rope_theta": 123.0},
}
FALCON_40B = {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}
FALCON_RW = {**FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}

CASES = (
    Case(
        "gpt2",
        "GPT2LMHeadModel",
        {
            **GPT2,
            "n_inner": 36,
            "activation_function": "relu",
            "scale_attn_by_inverse_layer_idx": True,
            "reorder_and_upcast_attn": True,
        },
        TEXT,
    ),
    Case("gpt2 untied", "GPT2LMHeadModel", {**GPT2, "scale_attn_weights": False, "tie_word_embeddings": False}, TEXT),
    Case("gpt2 bare", "GPT2Model", {**GPT2, "activation_function": "gelu"}, TEXT),
    Case("gpt_neo", "GPTNeoForCausalLM", {**NEO, "intermediate_size": 36, "activation_function": "silu"}, TEXT, 0.3),
    Case("gpt_neo untied", "GPTNeoForCausalLM", {**NEO, "tie_word_embeddings": False}, TEXT, 0.3),
    Case("gpt_neo bare", "GPTNeoModel", {**NEO, "attention_types": [[["global"], 3]]}, TEXT, 0.3),
    Case("gptj", "GPTJForCausalLM", {**J, "n_inner": 36, "activation_function": "relu"}, TEXT),
    Case("gptj tied", "GPTJForCausalLM", {**J, "rotary_dim": 8, "tie_word_embeddings": True}, TEXT),
    Case("gptj bare", "GPTJModel", J, TEXT),
    Case("gpt_neox", "GPTNeoXForCausalLM", {**NEOX, "hidden_act": "gelu_new"}, TEXT),
    Case(
        "gpt_neox in turn",
        "GPTNeoXForCausalLM",
        {**NEOX, "use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True},
        TEXT,
    ),
    Case(
        "gpt_neox linear",
        "GPTNeoXModel",
        {
            **NEOX,
            "rope_parameters": {
                "rope_type": "linear",
                "factor": 2.5,
                "rope_theta": 123.0,
                "partial_rotary_factor": 0.75,
            },
        },
        TEXT,
    ),
    Case("opt", "OPTForCausalLM", {**OPT, "activation_function": "gelu"}, TEXT),
    Case("opt 350m", "OPTForCausalLM", OPT_350M, TEXT),
    Case("opt 350m untied", "OPTForCausalLM", {**OPT_350M, "tie_word_embeddings": False}, TEXT),
    Case(
        "opt plain",
        "OPTForCausalLM",
        {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False, "tie_word_embeddings": False},
        TEXT,
    ),
    Case("opt bare", "OPTModel", {**OPT, "_remove_final_layer_norm": True}, TEXT),
    # smaller weights: its gelu has no more than eight digits of sqrt(2 / pi)
    Case("bloom", "BloomForCausalLM", BLOOM, TEXT, 0.3),
    Case("bloom untied", "BloomForCausalLM", {**BLOOM, "n_head": 4, "tie_word_embeddings": False}, TEXT, 0.3),
    Case("bloom bare", "BloomModel", BLOOM, TEXT, 0.3),
    Case("falcon", "FalconForCausalLM", {**FALCON, "activation": "silu"}, TEXT),
    Case("falcon grouped", "FalconForCausalLM", {**FALCON_40B, "tie_word_embeddings": False}, TEXT),
    Case("falcon one norm", "FalconForCausalLM", {**FALCON_40B, "num_ln_in_parallel_attn": 1}, TEXT),
    Case("falcon by head", "FalconForCausalLM", {**FALCON, "multi_query": False}, TEXT),
    # its eager attention adds the bonus twice
    Case("falcon rw", "FalconForCausalLM", FALCON_RW, TEXT, attention="sdpa"),
    Case("falcon bare", "FalconModel", {**FALCON, "parallel_attn": False}, TEXT),
)
