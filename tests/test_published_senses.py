"""What the stored references do not show of published models that see: missing keys, what is refused."""

import json
from typing import Any

import pytest

from anyformer.core.errors import InputError
from anyformer.models.published import declared

FEW = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
LEAST = {
    "clip": {"text_config": {}, "vision_config": {}},
    "deit": {**FEW, "intermediate_size": 36},
    "dinov2": FEW,
    "siglip": {"text_config": {}, "vision_config": {}},
    "vit": {**FEW, "intermediate_size": 36},
}


@pytest.mark.parametrize("kind", LEAST)
def test_a_missing_key_means_what_it_means_in_the_reference(kind: str) -> None:
    made = pytest.importorskip("transformers").AutoConfig.for_model(kind, **LEAST[kind])
    there = declared(json.loads(made.to_json_string(use_diff=False)), "there")
    assert declared({"model_type": kind, **LEAST[kind]}, "here") == there


@pytest.mark.parametrize(
    ("kind", "keys", "match"),
    [
        ("deit", {"pooler_act": "gelu"}, "pooler_act"),
        ("dinov2", {"drop_path_rate": 0.1}, "drop_path_rate"),
        ("dinov2", {"architectures": ["Dinov2ForMaskedImageModeling"]}, "architectures"),
        ("siglip", {"vision_config": {"vision_use_head": False}}, "vision_use_head"),
        ("vit", {"patch_size": [3, 4]}, "patch_size"),
    ],
)
def test_what_is_not_computed_is_refused(kind: str, keys: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        declared({"model_type": kind, **LEAST[kind], **keys}, "here")
