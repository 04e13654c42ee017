"""GPT-2 and those after it, as hubs have had them for years: older keys, older names, tables beside the weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden.cases import CASES
from golden.published import CLOSE, Reference, ours, stored
from torch import Tensor

from anyformer.checkpoints.config import Inexpressible
from anyformer.checkpoints.foreign import Foreign
from anyformer.core.errors import InputError
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.models.published import declared, load_published, model_type

Tree = dict[str, Any]


def reference(name: str) -> tuple[Reference, Tree, dict[str, Tensor]]:
    """What is stored of a case, its config and its tensors, to be made older."""
    case = next(case for case in CASES if case.name == name)
    found = stored(case)
    return found, dict(found.config), dict(found.published(case).tensors)


def rename(tree: Tree, **names: str) -> None:
    for new, old in names.items():
        tree[old] = tree.pop(new)


def gpt2(config: Tree, tensors: dict[str, Tensor]) -> None:
    """Without the prefix, with the pattern as a table, and with the first files' keys."""
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 20, 20).tril()
    tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    config.update(n_ctx=20, n_special=0, predict_special_tokens=True, summary_type="cls_index", _num_labels=1)


def gpt_neox(config: Tree, tensors: dict[str, Tensor]) -> None:
    """With today's name of the head, which is written in the older form, and the older keys of rotary positions."""
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    tensors["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 20, 20).tril()
    tensors["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e4)
    tensors["gpt_neox.layers.1.attention.rotary_emb.inv_freq"] = torch.ones(2)
    new = config.pop("rope_parameters")
    config.update(rotary_emb_base=new["rope_theta"], rotary_pct=new["partial_rotary_factor"], rope_scaling=None)


def gptj(config: Tree, tensors: dict[str, Tensor]) -> None:
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 20, 20).tril()
    rename(config, n_embd="hidden_size", n_positions="max_position_embeddings")
    config.update(rotary=True, scale_attn_weights=True)


def bloom(config: Tree, tensors: dict[str, Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["transformer.word_embeddings.weight"]
    rename(config, hidden_size="n_embed", n_layer="num_hidden_layers", n_head="num_attention_heads")
    config.update(offset_alibi=100, masked_softmax_fusion=True, seq_length=2048, skip_bias_add=True)


def opt(config: Tree, tensors: dict[str, Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"]
    config.update(activation_dropout=0.0, layerdrop=0.0, init_std=0.02, prefix="</s>")


OLDER: dict[str, Callable[[Tree, dict[str, Tensor]], None]] = {
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "gptj": gptj,
    "bloom": bloom,
    "opt": opt,
    "opt 350m": opt,
}


@pytest.mark.parametrize("name", OLDER)
@torch.no_grad()
def test_older_files_give_the_same_numbers(name: str) -> None:
    found, config, tensors = reference(name)
    OLDER[name](config, tensors)
    model = load_published(Foreign(config, tensors), name)
    torch.testing.assert_close(model(found.inputs["input_ids"]), found.answer.out, **CLOSE)


REFUSED: dict[str, tuple[str, Tree, str]] = {
    "layers that disagree": ("gpt_neo", {"attention_layers": ["global"] * 3}, "attention_types says global, local"),
    "too few layers": ("gpt_neo", {"num_layers": 4}, "which num_layers or attention_layers denies"),
    "no such layer": ("gpt_neo", {"attention_types": [[["near"], 3]]}, "attention_types should be a list of"),
    "wild layers": ("gpt_neo", {"attention_types": [[["local"], 10**8]]}, "attention_types should be a list of"),
    "a reader of a source": ("gpt2", {"add_cross_attention": True}, "add_cross_attention should be one of False"),
    "half a pair": ("gptj", {"rotary_dim": 5}, r"rotary channels \(5\) must be even"),
    "no head": ("gpt_neox", {"num_attention_heads": 100}, "rotary_pct should be the share"),
    "without biases": ("bloom", {"slow_but_exact": True}, "slow_but_exact should be one of False"),
    "another residual": ("bloom", {"apply_residual_connection_post_layernorm": True}, "should be one of False"),
    "narrow and bare": ("opt bare", {"word_embed_proj_dim": 10}, "understood of OPTForCausalLM alone"),
    "in turn and grouped": ("falcon grouped", {"parallel_attn": False}, "parallel_attn should be one of True"),
    "heads without width": ("falcon rw", {"num_attention_heads": 100}, "must be a multiple of heads"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_the_reference_cannot_run_or_we_cannot_say_is_refused(fault: str) -> None:
    name, changes, message = REFUSED[fault]
    with pytest.raises(InputError, match=message):
        declared({**reference(name)[1], **changes}, "config.json")


ODD: dict[str, tuple[str, str, Any, str]] = {
    "a scale of its own": ("gpt2", "body.blocks.1.mixer.scale", 0.3, "body.blocks.1.mixer.scale"),
    "two windows": ("gpt_neo", "body.blocks.2.mixer.pattern", "causal & window(9)", "body.blocks.2.mixer.pattern"),
    "another pattern": ("gpt_neo", "body.blocks.2.mixer.pattern", "full", "attention_types"),
    "another mixer": ("gpt_neo", "body.blocks.1.mixer", {"kind": "linear", "heads": 6}, "attention_types"),
    "other words": ("opt", "embedding", {"kind": "given"}, "word_embed_proj_dim"),
    "narrow words and no head": ("opt 350m", "head", None, "head.decoder|understood of OPTForCausalLM"),
    "keys of groups in turn": ("falcon by head", "body.blocks.0.mixer.kv_heads", 3, "kv_heads"),
}


@pytest.mark.parametrize("oddity", ODD)
def test_what_a_type_cannot_say_is_named(oddity: str) -> None:
    name, path, value, message = ODD[oddity]
    case = next(case for case in CASES if case.name == name)
    tree: Any = ours(case, stored(case)).spec.to_dict()
    *way, last = path.split(".")
    node = tree
    for step in way:
        node = node[int(step) if step.isdigit() else step]
    node[last] = value
    with pytest.raises(Inexpressible, match=message):
        model_type(case.model_type, "").write(case.model_type, from_dict(AnyModel, tree))


def test_falcon_says_each_form_in_its_own_keys() -> None:
    """One key for all heads is the older form, two norms or groups the newer."""
    for name, newer in {"falcon": False, "falcon by head": False, "falcon rw": False, "falcon grouped": True}.items():
        case = next(case for case in CASES if case.name == name)
        config = model_type("falcon", "").write("falcon", ours(case, stored(case)).spec)
        assert config["new_decoder_architecture"] is newer
        assert ("num_kv_heads" in config) is newer and ("multi_query" in config) is not newer
