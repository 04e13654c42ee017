"""T5, BART and their kin: one text in, another one out."""

from golden.published import TEXT, TWO_TEXTS, Case

SMALL_T5 = {
    "vocab_size": 61,
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 36,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
    "layer_norm_epsilon": 0.03,
    "decoder_start_token_id": 0,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FREE = {"lm_head.weight": "shared.weight"}
SMALL_BART = {
    "vocab_size": 61,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 36,
    "decoder_ffn_dim": 28,
    "max_position_embeddings": 20,
    "scale_embedding": True,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
APART = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 57, "vocab_size": 57}

CASES = (
    Case("t5", "T5ForConditionalGeneration", SMALL_T5, TWO_TEXTS, 0.3),
    Case("t5 gated", "T5ForConditionalGeneration", {**SMALL_T5, **GATED}, TWO_TEXTS, 0.3, apart=FREE),
    Case("t5 gated tied", "T5ForConditionalGeneration", {**SMALL_T5, **GATED}, TWO_TEXTS, 0.3),
    Case("t5 silu", "T5ForConditionalGeneration", {**SMALL_T5, "feed_forward_proj": "gated-silu"}, TWO_TEXTS, 0.3),
    Case("t5 bare", "T5Model", {**SMALL_T5, "num_decoder_layers": None}, TWO_TEXTS, 0.3),
    Case("t5 encoder", "T5EncoderModel", SMALL_T5, TEXT, 0.3),
    Case("bart", "BartForConditionalGeneration", {**SMALL_BART, "activation_function": "relu"}, TWO_TEXTS),
    Case("bart bare", "BartModel", {**SMALL_BART, "scale_embedding": False}, TWO_TEXTS),
    Case("marian", "MarianMTModel", {**SMALL_BART, "activation_function": "swish"}, TWO_TEXTS),
    Case("marian apart", "MarianMTModel", {**SMALL_BART, **APART, "scale_embedding": False}, TWO_TEXTS),
    Case("marian bare", "MarianModel", SMALL_BART, TWO_TEXTS),
    Case("pegasus", "PegasusForConditionalGeneration", {**SMALL_BART, "activation_function": "relu"}, TWO_TEXTS),
    Case("pegasus bare", "PegasusModel", {**SMALL_BART, "scale_embedding": False}, TWO_TEXTS),
)
