"""Files as they were published: without a prefix, with older names, with tensors twice and with ones that say nothing.

Each form is made of a stored reference; what is loaded of it is what is loaded of that, bit for bit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from golden.cases import CASES
from golden.published import Reference, ours, stored
from torch import Tensor

from anyformer.checkpoints.foreign import Foreign
from anyformer.core.errors import InputError
from anyformer.models.published import load_published

Tensors = dict[str, Tensor]
Form = Callable[[Tensors], Tensors]

LAYERS = range(2)
NOTHING = torch.ones(3)


def form(*steps: Form) -> Form:
    def made(tensors: Tensors) -> Tensors:
        for step in steps:
            tensors = step(dict(tensors))
        return tensors

    return made


def bare(prefix: str) -> Form:
    """As a model without a head is saved."""
    return lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def idle(*names: str) -> Form:
    """With tensors that say nothing, in each layer where they have an {i}."""
    return lambda tensors: {**tensors, **{name.format(i=i): NOTHING for name in names for i in LAYERS}}


def twice(**copies: str) -> Form:
    """With copies: the name, a dot being two underscores -> whose copy it is."""
    return lambda tensors: {
        **tensors,
        **{copy.replace("__", "."): tensors[owner].clone() for copy, owner in copies.items()},
    }


def without(*names: str) -> Form:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(names)}


def old_norms(tensors: Tensors) -> Tensors:
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }


POOLER = ("pooler.dense.weight", "pooler.dense.bias")
FORMS: dict[str, tuple[str, Form]] = {
    "gpt2": ("gpt2", form(bare("transformer."), idle("h.{i}.attn.bias", "h.{i}.attn.masked_bias"))),
    "distilgpt2": ("gpt2", form(twice(lm_head__weight="transformer.wte.weight"), idle("transformer.h.{i}.attn.bias"))),
    "gpt-neo": (
        "gpt_neo",
        form(
            twice(lm_head__weight="transformer.wte.weight"),
            idle("transformer.h.{i}.attn.attention.bias", "transformer.h.{i}.attn.attention.masked_bias"),
        ),
    ),
    "gpt-j": ("gptj", idle("transformer.h.{i}.attn.bias", "transformer.h.{i}.attn.masked_bias")),
    "pythia": (
        "gpt_neox",
        idle(*(f"gpt_neox.layers.{{i}}.attention.{name}" for name in ("bias", "masked_bias", "rotary_emb.inv_freq"))),
    ),
    "opt-125m": ("opt", bare("model.")),
    "opt-6.7b": ("opt", twice(lm_head__weight="model.decoder.embed_tokens.weight")),
    "bloom": ("bloom", bare("transformer.")),
    "falcon": ("falcon", twice(lm_head__weight="transformer.word_embeddings.weight")),
    "llama": ("llama", idle("model.layers.{i}.self_attn.rotary_emb.inv_freq")),
    "llama tied": ("llama tied", twice(lm_head__weight="model.embed_tokens.weight")),
    "llama bare": ("llama bare", idle("layers.{i}.self_attn.rotary_emb.inv_freq")),
    "stablelm": ("stablelm", idle("model.layers.{i}.self_attn.rotary_emb.inv_freq")),
    "bert": (
        "bert masked",
        form(
            twice(
                cls__predictions__decoder__weight="bert.embeddings.word_embeddings.weight",
                cls__predictions__decoder__bias="cls.predictions.bias",
            ),
            idle("bert.embeddings.position_ids", *(f"bert.{name}" for name in POOLER)),
            idle("cls.seq_relationship.weight", "cls.seq_relationship.bias"),
            old_norms,
        ),
    ),
    "bert span": ("bert span", idle("bert.embeddings.position_ids", *(f"bert.{name}" for name in POOLER))),
    "MiniLM": ("bert", idle("embeddings.position_ids")),
    "roberta": (
        "roberta masked",
        form(
            twice(
                lm_head__decoder__weight="roberta.embeddings.word_embeddings.weight",
                lm_head__decoder__bias="lm_head.bias",
            ),
            idle("roberta.embeddings.position_ids", *(f"roberta.{name}" for name in POOLER)),
        ),
    ),
    "roberta-large-mnli": (
        "roberta classify",
        idle("roberta.embeddings.position_ids", *(f"roberta.{name}" for name in POOLER)),
    ),
    "distilbert": (
        "distilbert masked",
        form(
            twice(vocab_projector__weight="distilbert.embeddings.word_embeddings.weight"),
            idle("distilbert.embeddings.position_ids"),
        ),
    ),
    "electra generator": (
        "electra masked",
        form(
            twice(
                generator_lm_head__weight="electra.embeddings.word_embeddings.weight",
            ),
            idle("electra.embeddings.position_ids"),
        ),
    ),
    "albert": (
        "albert masked",
        form(
            twice(
                predictions__decoder__weight="albert.embeddings.word_embeddings.weight",
                predictions__decoder__bias="predictions.bias",
            ),
            idle("albert.embeddings.position_ids", "albert.pooler.weight", "albert.pooler.bias"),
        ),
    ),
    "t5": (
        "t5",
        form(
            twice(
                encoder__embed_tokens__weight="shared.weight",
                decoder__embed_tokens__weight="shared.weight",
                lm_head__weight="shared.weight",
            ),
            idle("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
        ),
    ),
    "sentence-t5": ("t5 encoder", twice(encoder__embed_tokens__weight="shared.weight")),
    "bart": (
        "bart",
        form(
            twice(
                model__encoder__embed_tokens__weight="model.shared.weight",
                model__decoder__embed_tokens__weight="model.shared.weight",
                lm_head__weight="model.shared.weight",
            ),
            idle("model.encoder.version", "model.decoder.version"),
        ),
    ),
    "bart-base": (
        "bart bare",
        form(
            twice(encoder__embed_tokens__weight="shared.weight", decoder__embed_tokens__weight="shared.weight"),
            idle("encoder.version", "decoder.version"),
        ),
    ),
    "marian": (
        "marian",
        twice(
            model__encoder__embed_tokens__weight="model.shared.weight",
            model__decoder__embed_tokens__weight="model.shared.weight",
            lm_head__weight="model.shared.weight",
        ),
    ),
    "whisper": ("whisper", twice(proj_out__weight="model.decoder.embed_tokens.weight")),
    "clip": ("clip", idle("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")),
    "siglip": ("siglip", idle("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")),
    "modernbert": ("modernbert masked", twice(decoder__weight="model.embeddings.tok_embeddings.weight")),
    "mpnet": (
        "mpnet masked",
        form(
            twice(
                lm_head__decoder__weight="mpnet.embeddings.word_embeddings.weight",
                lm_head__decoder__bias="lm_head.bias",
            ),
            idle("mpnet.embeddings.position_ids", *(f"mpnet.{name}" for name in POOLER)),
        ),
    ),
    "big_bird": (
        "big_bird masked",
        form(
            twice(
                cls__predictions__decoder__weight="bert.embeddings.word_embeddings.weight",
                cls__predictions__decoder__bias="cls.predictions.bias",
            ),
            idle("bert.embeddings.position_ids", "bert.pooler.weight", "bert.pooler.bias"),
        ),
    ),
    "pegasus": ("pegasus", twice(lm_head__weight="model.shared.weight")),
    "gemma": ("gemma", twice(lm_head__weight="model.embed_tokens.weight")),
    "mamba2": (
        "mamba2",
        lambda tensors: {n.replace("backbone.embeddings.", "backbone.embedding."): t for n, t in tensors.items()},
    ),
}


def reference(name: str) -> tuple[Any, Reference]:
    case = next(case for case in CASES if case.name == name)
    return case, stored(case)


def loaded(config: Mapping[str, Any], tensors: Tensors, name: str) -> Mapping[str, Tensor]:
    return load_published(Foreign(config, tensors), name, dtype=torch.float64).state_dict()


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_published_form(name: str) -> None:
    like, change = FORMS[name]
    case, saved = reference(like)
    tensors = change(dict(saved.published(case).tensors))
    found, wanted = loaded(saved.config, tensors, name), ours(case, saved).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


NAMELESS = {
    "all-mpnet-base-v2": ("mpnet", ["MPNetForMaskedLM"]),
    "all-roberta-large-v1": ("roberta", ["RobertaForMaskedLM"]),
    "longformer-base-4096": ("longformer masked", None),
    "bert": ("bert masked", None),
    "bert bare": ("bert", None),
    "gpt2": ("gpt2 bare", ["GPT2LMHeadModel"]),
    "llama bare": ("llama bare", ["LlamaForCausalLM"]),
}


@pytest.mark.parametrize("name", NAMELESS)
@torch.no_grad()
def test_the_file_says_what_it_is(name: str) -> None:
    """A config may name no class, or one with a head where the file has none."""
    like, classes = NAMELESS[name]
    case, saved = reference(like)
    config = {**saved.config, "architectures": classes}
    found = loaded(config, dict(saved.published(case).tensors), name)
    wanted = ours(case, saved).state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted) and found.keys() == wanted.keys()


@pytest.mark.parametrize(
    ("like", "change", "message"),
    [
        ("llama", without("lm_head"), "no tensor for head.out.weight"),
        (
            "llama",
            idle("model.layers.{i}.self_attn.extra.weight"),
            "no place for model.layers.0.self_attn.extra.weight",
        ),
        ("llama tied", lambda tensors: {**tensors, "lm_head.weight": NOTHING}, "another tensor for it"),
        ("bert masked", without("cls.predictions.transform.dense"), "no tensor for head.dense.bias"),
        ("bert masked", idle("bert.encoder.layer.{i}.output.scale"), "no place for bert.encoder.layer.0.output.scale"),
        ("gpt2", idle("transformer.h.{i}.attn.gate"), "no place for transformer.h.0.attn.gate"),
        ("t5", idle("decoder.block.{i}.layer.1.EncDecAttention.r.weight"), "no place for decoder.block.0"),
    ],
)
def test_nothing_else_is_passed_over(like: str, change: Form, message: str) -> None:
    case, saved = reference(like)
    with pytest.raises(InputError, match=message):
        loaded(saved.config, change(dict(saved.published(case).tensors)), like)
