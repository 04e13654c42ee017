"""Decoders that judge a whole text: of each type that has such a class, its first case with another head."""

from dataclasses import replace
from typing import Any

from golden.cases import experts, gemma, gpt, llama

FIRST = {
    case.name: case for case in (*llama.CASES, *gpt.CASES, *gemma.CASES, *experts.CASES) if case.name == case.model_type
}
FAMILIES = {
    "bloom": "Bloom",
    "deepseek_v3": "DeepseekV3",
    "falcon": "Falcon",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
    "gpt2": "GPT2",
    "gpt_neo": "GPTNeo",
    "gpt_neox": "GPTNeoX",
    "gpt_oss": "GptOss",
    "gptj": "GPTJ",
    "llama": "Llama",
    "mistral": "Mistral",
    "mixtral": "Mixtral",
    "olmo2": "Olmo2",
    "opt": "OPT",
    "phi": "Phi",
    "phi3": "Phi3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3Moe",
    "smollm3": "SmolLM3",
    "stablelm": "StableLm",
    "starcoder2": "Starcoder2",
}
THREE = {"num_labels": 3, "pad_token_id": 1}
MORE: dict[str, dict[str, Any]] = {
    "llama": {"problem_type": "multi_label_classification", "tie_word_embeddings": True},
    "gpt2": {"num_labels": 1},  # a number
    "qwen2": {"problem_type": "regression", "tie_word_embeddings": True},
}

CASES = tuple(
    replace(
        FIRST[kind],
        name=f"{kind} judges",
        reference=f"{family}ForSequenceClassification",
        config={**FIRST[kind].config, **THREE, **MORE.get(kind, {})},
        whole=True,
    )
    for kind, family in FAMILIES.items()
)
