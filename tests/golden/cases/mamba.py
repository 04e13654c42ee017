"""State spaces, alone and beside attention."""

from math import inf

from golden.published import TEXT, Answer, Case, Style

SECOND = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_heads": 6,
    "head_dim": 12,
    "expand": 3,
    "state_size": 5,
    "n_groups": 2,
    "conv_kernel": 3,
    "chunk_size": 4,
    "layer_norm_epsilon": 0.03,
    "hidden_act": "gelu",
    "time_step_limit": [0.2, 0.9],
    "use_bias": True,
}
BAMBA = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 0.03,
    "hidden_act": "gelu",
    "attn_layer_indices": [1],
    "mamba_n_heads": 6,
    "mamba_d_head": 12,
    "mamba_expand": 3,
    "mamba_d_state": 5,
    "mamba_n_groups": 2,
    "mamba_d_conv": 3,
    "mamba_chunk_size": 4,
    "time_step_limit": [0.2, 0.9],
    "rope_parameters": {"rope_type": "default", "rope_theta": 123.0},
    "attention_bias": True,
    "mlp_bias": True,
}
USUAL = {"mamba_d_head": "auto", "time_step_limit": [0.0, inf], "mamba_proj_bias": True, "mamba_conv_bias": False}
# what the first block reads is not among the hidden states
BLOCKS = Style(
    TEXT.draw,
    TEXT.ask,
    lambda out: Answer(out.logits if "logits" in out else out.last_hidden_state, tuple(out.hidden_states[:-2])),
)

CASES = (
    Case("mamba2", "Mamba2ForCausalLM", SECOND, BLOCKS),
    Case("mamba2 tied", "Mamba2ForCausalLM", {**SECOND, "use_bias": False, "tie_word_embeddings": True}, BLOCKS),
    Case("mamba2 bare", "Mamba2Model", {**SECOND, "use_conv_bias": False, "time_step_limit": [0.0, inf]}, BLOCKS),
    Case("bamba", "BambaForCausalLM", BAMBA, TEXT),
    Case("bamba usual", "BambaModel", {**BAMBA, **USUAL, "attention_bias": False, "mlp_bias": False}, TEXT),
)
