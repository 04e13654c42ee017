"""Adapters: what is learned beside the weights of a model that is there already."""

TABLE = {
    "lora": "lora:LoRA",
    "prefix": "prefix:Prefix",
    "prompt": "prompt:Prompt",
}
