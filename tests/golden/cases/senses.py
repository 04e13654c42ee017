"""Models that see and hear."""

from golden.published import PAIRS, PAIRS_WHOLE, PATCHES, PIXELS, SOUND, Case

SMALL_VIT = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 0.03,
    "image_size": 9,
    "patch_size": 3,
    "num_channels": 2,
}
SMALL_DINOV2 = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "mlp_ratio": 2,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 0.03,
    "image_size": 9,
    "patch_size": 3,
    "num_channels": 2,
    "layerscale_value": 0.3,
}
SMALL_WHISPER = {
    "vocab_size": 61,
    "num_mel_bins": 5,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 36,
    "decoder_ffn_dim": 28,
    "max_source_positions": 9,
    "max_target_positions": 20,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
TOWER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "layer_norm_eps": 0.03,
}
SMALL_CLIP = {
    "text_config": {**TOWER, "vocab_size": 61, "max_position_embeddings": 20, "eos_token_id": 60, "hidden_act": "gelu"},
    "vision_config": {
        **TOWER,
        "hidden_size": 28,
        "num_hidden_layers": 3,
        "image_size": 9,
        "patch_size": 3,
        "num_channels": 2,
    },
    "projection_dim": 10,
    "logit_scale_init_value": 1.7,
}
SMALL_SIGLIP = {
    "text_config": {
        **TOWER,
        "vocab_size": 61,
        "max_position_embeddings": 20,
        "hidden_act": "gelu",
        "hidden_size": 28,
        "projection_size": 24,
    },
    "vision_config": {
        **TOWER,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "intermediate_size": 28,
        "layer_norm_eps": 0.05,
        "hidden_act": "quick_gelu",
        "image_size": 9,
        "patch_size": 3,
        "num_channels": 2,
    },
}

CASES = (
    Case("clip", "CLIPModel", SMALL_CLIP, PAIRS),
    Case("deit", "DeiTForImageClassificationWithTeacher", {**SMALL_VIT, "num_labels": 3}, PIXELS),
    Case(
        "deit one head",
        "DeiTForImageClassification",
        {**SMALL_VIT, "image_size": [9, 13], "qkv_bias": False, "num_labels": 3},
        PIXELS,
    ),
    Case("deit bare", "DeiTModel", {**SMALL_VIT, "hidden_act": "gelu"}, PIXELS),
    Case("dinov2", "Dinov2Model", SMALL_DINOV2, PATCHES),
    Case(
        "dinov2 gated",
        "Dinov2Model",
        {**SMALL_DINOV2, "hidden_size": 28, "use_swiglu_ffn": True, "use_mask_token": False, "qkv_bias": False},
        PATCHES,
    ),
    Case("dinov2 classes", "Dinov2ForImageClassification", {**SMALL_DINOV2, "num_labels": 3}, PIXELS),
    Case("siglip", "SiglipModel", SMALL_SIGLIP, PAIRS_WHOLE),
    Case("vit", "ViTForImageClassification", {**SMALL_VIT, "num_labels": 3}, PIXELS),
    Case("vit wide", "ViTForImageClassification", {**SMALL_VIT, "image_size": [9, 13], "qkv_bias": False}, PIXELS),
    Case("vit bare", "ViTModel", {**SMALL_VIT, "hidden_act": "gelu"}, PIXELS),
    Case("whisper", "WhisperForConditionalGeneration", {**SMALL_WHISPER, "activation_function": "relu"}, SOUND),
    Case("whisper bare", "WhisperModel", SMALL_WHISPER, SOUND),
)
