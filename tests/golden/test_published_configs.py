"""Published checkpoints of all types, as their configs are on the hub: read without a key too much, counted, written.

`data/configs.json` has their keys and values, and how many numbers each model has: its parameters and the buffers that
are learned. Tables of a thousand names are told as 1000. It was written from knowledge of the files, not copied from
them; those of Llama-2-7b-hf, Llama-3.1-8B, Ministral-8B, Mamba-Codestral and longformer-base-4096 were held against
public copies, that of t5-3b in part. The counts are those of the reference library's models, and beside them what it
has for buffers (biases of logits and of routers) or ties (T5 1.1's own head), without tables of waves.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.cases import CASES
from golden.published import CLOSE, STORED, Case, asked, exact, opened, quiet, weight, write
from safetensors.torch import load_file

from anyformer.checkpoints.config import HARMLESS
from anyformer.checkpoints.foreign import Foreign
from anyformer.checkpoints.quantised import told
from anyformer.core.build import made
from anyformer.core.errors import InputError
from anyformer.core.spec import ModelSpec
from anyformer.core.tables import table
from anyformer.models.published import load_published, model_type, with_type

PUBLISHED: dict[str, dict[str, Any]] = json.loads((STORED / "configs.json").read_text("utf-8"))
every = pytest.mark.parametrize("name", PUBLISHED)

# sizes of models that are as quickly computed as the others are read
SMALL = {
    **dict.fromkeys(("hidden_size", "n_embd", "n_embed", "d_model", "dim"), 160),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "hidden_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 4),
    **dict.fromkeys(("vocab_size", "decoder_vocab_size"), 99),
    **dict.fromkeys(("sliding_window", "window_size"), 6),
    **dict.fromkeys(("num_experts", "num_local_experts"), 5),
    **dict.fromkeys(("num_experts_per_tok", "experts_per_token"), 2),
    "d_kv": 8,
    "embedding_size": 24,
    "rotary_dim": 16,
    "projection_dim": 10,
    "local_attention": 8,
    "patch_size": 4,
    "image_size": 12,
    "max_source_positions": 9,
    "max_target_positions": 20,
    "num_mel_bins": 5,
    "block_size": 2,
    "num_random_blocks": 1,
    "attn_layer_indices": [1],
    "attn_rotary_emb": 20,
    "n_routed_experts": 16,
    "n_group": 4,
    "topk_group": 2,
    "q_lora_rank": 11,
    "kv_lora_rank": 9,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 40,
    "mamba_d_state": 5,
    "mamba_chunk_size": 4,
    "out_features": ["stage4"],
    "out_indices": [4],
    "stage_names": ["stem", *(f"stage{i}" for i in range(1, 5))],
}
# what those sizes do not fit
OF_TYPES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"num_hidden_layers": 6},
    "mamba2": {"num_heads": 8, "head_dim": 40, "intermediate_size": 320, "state_size": 5, "chunk_size": 4},
}
TOWER = {key: SMALL[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")}
TEXT_TOWER = {**TOWER, "vocab_size": SMALL["vocab_size"], "eos_token_id": SMALL["vocab_size"] - 1}
IMAGE_TOWER = {**TOWER, "image_size": SMALL["image_size"], "patch_size": SMALL["patch_size"], "num_channels": 3}
# types whose positions have a table; "": a tower
TABLES = {
    *("", "albert", "bart", "bert", "big_bird", "distilbert", "electra", "gpt2", "gpt_neo", "longformer", "marian"),
    *("mpnet", "opt", "pegasus", "roberta", "xlm-roberta"),
}
# what the reference library no longer reads
UNREAD = {"microsoft/Phi-3-mini-128k-instruct (first revision)"}


def config_of(name: str) -> dict[str, Any]:
    """The keys of one of them."""
    return dict(with_type({key: _whole(key, value) for key, value in PUBLISHED[name]["config"].items()}, name))


def _whole(key: str, value: Any) -> Any:
    names = [f"name {number}" for number in range(1000)]
    names[517] = names[134] = "crane"  # as ImageNet has it
    wholes = {
        "id2label": {str(at): one for at, one in enumerate(names)},
        "label2id": {n: i for i, n in enumerate(names)},
    }
    return wholes[key] if key in wholes and value == 1000 else value


def spec_of(config: Mapping[str, Any], where: str) -> ModelSpec:
    """What a config declares."""
    return model_type(config["model_type"], where).read(told(config, where)[0], where)


def counted(spec: ModelSpec) -> int:
    """The numbers of a model."""
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in made(spec).state_dict().values())


def test_every_type_has_a_checkpoint() -> None:
    assert {config_of(name)["model_type"] for name in PUBLISHED} == set(table("anyformer.models"))


@every
def test_declared(name: str) -> None:
    """Read as it is, and no key more, with as many numbers as the checkpoint has; what is written declares the same."""
    config, wanted = config_of(name), PUBLISHED[name]["parameters"]
    with pytest.raises(InputError, match="nothing here reads 'surprise'"):
        spec_of({**config, "surprise": 1}, name)
    spec = spec_of(config, name)
    assert spec_of(model_type(config["model_type"], name).write(config["model_type"], spec), "ours") == spec
    if "n_routed_experts" not in config and "num_experts" not in config:
        assert counted(spec) == wanted
        return
    # thousands of experts: two models of few layers tell how large one layer more is
    fewer, more = (counted(spec_of({**config, "num_hidden_layers": layers}, name)) for layers in (4, 5))
    assert fewer + (config["num_hidden_layers"] - 4) * (more - fewer) == wanted


def small(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the same keys and small sizes."""
    fits = {**SMALL, **OF_TYPES.get(tree["model_type"], {})}
    layers, heads = fits["num_hidden_layers"], 4
    made: dict[str, Any] = {}
    for key, value in tree.items():
        match key, value:
            case (("text_config" | "text_config_dict"), dict()):
                made[key] = {**small({"model_type": "", **value}), **TEXT_TOWER}
            case (("vision_config" | "vision_config_dict"), dict()):
                made[key] = {**small({"model_type": "", **value}), **IMAGE_TOWER}
            case ("num_key_value_heads" | "num_kv_heads", int()):
                made[key] = {1: 1, tree["num_attention_heads"]: heads}.get(value, 2)
            case ("head_dim", int()) if "head_dim" not in fits:
                made[key] = 40 if value * tree["num_attention_heads"] == tree["hidden_size"] else 24
            case ("word_embed_proj_dim", int()):
                made[key] = fits["hidden_size"] if value == tree["hidden_size"] else 24
            case ("rope_scaling", dict()):
                cut = int(20 * tree.get("partial_rotary_factor", 1))
                made[key] = {inner: one[:cut] if isinstance(one, list) else one for inner, one in value.items()}
            case ("attention_types", list()):
                made[key] = [[value[0][0], layers // 2]]
            case (("attention_layers" | "layer_types" | "no_rope_layers"), list()):
                made[key] = value[:layers]
            case ("attention_window", list()):
                made[key] = [8] * layers
            case (("n_positions" | "n_ctx" | "max_position_embeddings"), int()) if tree["model_type"] in TABLES:
                made[key] = 64 + value - 2 ** (value.bit_length() - 1)
            case (_, int()) if key.endswith("_token_id") and value > 98:
                made[key] = 98
            case (_, None):
                made[key] = None
            case _:
                made[key] = fits.get(key, value)
    return made


def case_of(name: str) -> Case:
    """A small model of a checkpoint, asked as others of its class are."""
    config = small(config_of(name))
    config.pop("quantization_config", None)
    kind = model_type(config["model_type"], name)
    cls = kind.class_of(config, name)
    same_class = [one for one in CASES if one.reference == cls]
    alike = max(
        same_class or [one for one in CASES if one.model_type == config["model_type"]],
        key=lambda one: sum(one.config.get(key) == value for key, value in config.items()),
    )
    return replace(alike, name=name, reference=cls, config=config, std=0.2)


def others() -> list[str]:
    """Those that are another model when they are small, and read by the library."""
    found = {
        json.dumps({k: v for k, v in small(config_of(name)).items() if k not in HARMLESS}): name for name in PUBLISHED
    }
    return [name for name in found.values() if name not in UNREAD]


@pytest.mark.parametrize("name", others())
@torch.no_grad()
def test_numbers(name: str, tmp_path: Path) -> None:
    """What its keys mean to the library, they mean here."""
    library, case = pytest.importorskip("transformers"), case_of(name)
    cls = getattr(library, case.reference)
    with quiet(library):
        cls(cls.config_class.from_dict(deepcopy(case.config))).save_pretrained(tmp_path)
        shapes = {name: tensor.shape for name, tensor in load_file(tmp_path / "model.safetensors").items()}
        shapes |= {name: shapes[owner] for name, owner in case.apart.items()}
        tensors = {name: weight(name, tuple(shape), case.std) for name, shape in shapes.items()}
        write(tmp_path, case.config, tensors)
        inputs = case.style.draw(case.config)
        with exact():
            answer = asked(case, opened(case, tmp_path), inputs)
    ours = case.style.ask(load_published(Foreign(dict(case.config), tensors), name), inputs)
    torch.testing.assert_close(ours.out, answer.out, **CLOSE)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("openai-community/gpt2", {"add_cross_attention": True}),
        ("meta-llama/Llama-2-7b-hf", {"add_cross_attention": True}),
        ("HuggingFaceTB/SmolLM2-135M", {"rope_interleaved": True}),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", {"shared_expert_intermediate_size": 512}),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", {"use_qk_norm": False}),
        ("bigscience/bloom-560m", {"n_inner": 1024}),
        ("tiiuae/falcon-11B", {"ff_factor": 2}),
        ("google/gemma-2-27b", {"sliding_window_size": 512}),
        ("allenai/longformer-base-4096", {"attention_mode": "n2"}),
        ("AntonV/mamba2-130m-hf", {"rms_norm": False}),
        ("mistralai/Mamba-Codestral-7B-v0.1", {"intermediate_size": 4096}),
        ("ibm-ai-platform/Bamba-9B", {"attn_rotary_emb": 128}),
        ("facebook/bart-large-cnn", {"normalize_before": True}),
        ("facebook/bart-base", {"normalize_embedding": False}),
        ("Helsinki-NLP/opus-mt-en-de", {"static_position_embeddings": False}),
        ("google/pegasus-xsum", {"add_final_layer_norm": False}),
        ("openai/clip-vit-large-patch14", {"text_config_dict": {"hidden_size": 512}}),
        ("google-t5/t5-3b", {"architectures": ["T5Stack"]}),
        ("microsoft/Phi-3-mini-4k-instruct", {"lm_head_bias": True}),
    ],
    ids=str,
)
def test_what_changes_numbers_is_refused(name: str, change: dict[str, Any]) -> None:
    """What some files say beside the keys that are read has to be what the type is."""
    with pytest.raises(InputError, match=next(iter(change))):
        spec_of({**config_of(name), **change}, name)


def test_the_form_of_the_authors_of_mamba2() -> None:
    """Their files say it in keys of their own, and mean what the converted ones do."""
    theirs, converted = (
        spec_of(config_of(name), name) for name in ("state-spaces/mamba2-130m", "AntonV/mamba2-130m-hf")
    )
    assert theirs == converted
    tree = PUBLISHED["state-spaces/mamba2-130m"]["config"]
    for change in ({"ssm_cfg": {"layer": "Mamba1"}}, {"ssm_cfg": {"layer": "Mamba2", "rmsnorm": False}}):
        with pytest.raises(InputError, match=r"ssm_cfg|rmsnorm"):
            with_type({**tree, **change}, "theirs")
    with pytest.raises(InputError, match="attn_layer_idx should be an empty list"):
        with_type({**tree, "attn_layer_idx": [9]}, "theirs")
