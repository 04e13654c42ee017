"""What the stored references do not show of published encoders: old files, keys in other forms, what is refused."""

from typing import Any

import pytest
import torch
from golden.cases.bert import CASES
from golden.published import Reference, labels, stored
from torch import Tensor

from anyformer.architectures.encoder import Encoder
from anyformer.checkpoints.foreign import Foreign
from anyformer.core.errors import InputError
from anyformer.core.model import Model
from anyformer.models.published import declared, load_published, published


def reference(name: str) -> tuple[Reference, dict[str, Tensor]]:
    case = next(case for case in CASES if case.name == name)
    found = stored(case)
    return found, dict(found.published(case).tensors)


def spec(name: str, **keys: Any) -> Encoder:
    """The declaration of a reference's config with other values; None: without the key."""
    config = {**reference(name)[0].config, **keys}
    found = declared({key: value for key, value in config.items() if value is not None}, name)
    assert isinstance(found, Encoder)
    return found


def refused(match: str, name: str, **keys: Any) -> None:
    with pytest.raises(InputError, match=match):
        spec(name, **keys)


@torch.no_grad()
def said(model: Model, found: Reference) -> Tensor:
    return model(found.inputs["input_ids"], labels=labels(found.inputs))


def test_files_of_the_first_years() -> None:
    """Gains and shifts as gamma and beta, the numbers of positions, another head's maps, no prefix."""
    found, tensors = reference("bert")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    old["embeddings.position_ids"] = torch.arange(20)[None]
    assert any("gamma" in name for name in old) and not any("bert." in name for name in old)
    torch.testing.assert_close(said(load_published(Foreign(found.config, old), ""), found), found.answer.out)
    found, tensors = reference("bert masked")
    more = {
        "bert.pooler.dense.weight": torch.ones(24, 24),
        "cls.seq_relationship.bias": torch.ones(2),
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
    }
    model = load_published(Foreign(found.config, {**tensors, **more}), "")
    torch.testing.assert_close(said(model, found), found.answer.out)
    more["cls.predictions.decoder.weight"] += 1
    with pytest.raises(InputError, match=r"ties cls\.predictions\.decoder\.weight"):
        load_published(Foreign(found.config, {**tensors, **more}), "")


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "mpnet", "longformer", "big_bird"])
def test_a_bare_model_without_a_pooler(name: str) -> None:
    """Its answer is the stream, and it is written without one."""
    found, tensors = reference(name)
    left = {key: tensor for key, tensor in tensors.items() if "pooler" not in key}
    assert len(left) == len(tensors) - 2
    model = load_published(Foreign(found.config, left), "")
    torch.testing.assert_close(said(model, found), found.answer.layers[-1])
    config, written = published(model, name)
    assert written.keys() == left.keys() and config["architectures"] == found.config["architectures"]


def test_labels() -> None:
    config = {"id2label": None, "label2id": None}
    assert spec("bert classify").to_dict()["head"]["labels"] == ["no", "yes", "perhaps"]
    assert spec("bert classify", **config).to_dict()["head"]["labels"] == ["LABEL_0", "LABEL_1"]
    assert spec("bert tag", **config, num_labels=3).to_dict()["head"]["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert spec("bert classify", **config, num_labels=1).to_dict()["head"]["kind"] == "regress"
    assert spec("bert classify", problem_type="regression").to_dict()["head"]["outputs"] == 3
    single = {"id2label": {"0": "only"}, "problem_type": "single_label_classification"}
    assert spec("bert classify", **single).to_dict()["head"]["labels"] == ["only"]
    assert spec("bert classify", problem_type="multi_label_classification").to_dict()["head"]["kind"] == "mark"
    cranes = {"id2label": {"0": "crane", "1": "tit", "2": "crane"}}
    assert spec("bert classify", **cranes).to_dict()["head"]["labels"] == ["crane", "tit", "crane (2)"]
    refused("problem_type should be one of", "bert classify", problem_type="many")
    for table in ({"0": "a", "1": "a (2)", "2": "a"}, {"0": 3}, {"1": "a"}, {"a": "b"}, {}, ["a"]):
        refused("id2label should be a table", "bert classify", id2label=table)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("bert", "is_decoder", True),
        ("bert", "position_embedding_type", "relative_key"),
        ("bert masked", "tie_word_embeddings", False),
        ("albert", "inner_group_num", 2),
        ("albert", "num_hidden_groups", 4),
        ("mpnet", "relative_attention_num_buckets", 64),
        ("roberta", "max_position_embeddings", 4),
        ("longformer", "attention_window", [4, 3]),
        ("longformer", "attention_window", [4, 4, 4]),
        ("big_bird", "attention_type", "random"),
        ("modernbert", "rope_parameters", {"full_attention": {"rope_type": "linear", "rope_theta": 9.0}}),
    ],
)
def test_what_is_refused(name: str, key: str, value: object) -> None:
    refused(key, name, **{key: value})


def test_one_window_for_all_layers() -> None:
    assert spec("longformer", attention_window=8) == spec("longformer", attention_window=[8, 8])
    assert spec("longformer", attention_window=8) != spec("longformer", attention_window=[8, 4])


def test_older_keys_of_modernbert() -> None:
    """Every third layer is global, and both rates stand by themselves."""
    types = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    now = {"layer_types": types, "rope_parameters": None}
    old = {"layer_types": None, "rope_parameters": None, "position_embedding_type": "absolute"}
    rates = {"global_rope_theta": 900.0, "local_rope_theta": 70.0}
    assert spec("modernbert", **old, **rates) == spec("modernbert", **now, **rates) == spec("modernbert")
    body = spec("modernbert", **old).to_dict()["body"]["blocks"]
    assert [block["mixer"]["position"]["theta"] for block in body] == [160_000.0, 10_000.0, 10_000.0, 160_000.0]
    assert [block["mixer"]["pattern"] for block in body] == ["full", "window(4)", "window(4)", "full"]
