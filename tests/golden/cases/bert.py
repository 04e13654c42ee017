"""BERT and its kin: each class of head, token types, unusual sizes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from golden.published import SEGMENTS, STREAM, TEXT, Answer, Case, Inputs, Style, integers, labels

from anyformer.core.model import Model
from anyformer.core.tape import Tape
from anyformer.heads.pretraining import PretrainingHead

SMALL = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 20,
    "type_vocab_size": 3,
    "layer_norm_eps": 0.03,
    "hidden_act": "gelu_new",
}
NAMES = {0: "no", 1: "yes", 2: "perhaps"}
CLASSES = {"id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}}


def _ask_all(model: Model, inputs: Inputs) -> Answer:
    """With the stream after the last block, which what is pooled has no more."""
    tape = Tape([STREAM])
    return Answer(model(inputs["input_ids"], tape=tape, labels=labels(inputs)), tuple(tape.values.values()))


def _pooled(output: Any) -> Answer:
    return Answer(output.pooler_output, tuple(output.hidden_states[1:]))


def _span(output: Any) -> Answer:
    return Answer(torch.stack([output.start_logits, output.end_logits], -1), tuple(output.hidden_states[1:-1]))


def _ask_pair(model: Model, inputs: Inputs) -> Answer:
    """With what the second head says in the place of a layer."""
    answer = SEGMENTS.ask(model, inputs)
    assert isinstance(model.head, PretrainingHead)
    pair = model.read(inputs["input_ids"], model.head.pair, labels=labels(inputs))
    return Answer(answer.out, (*answer.layers, pair))


def _pair(output: Any) -> Answer:
    return Answer(output.prediction_logits, (*output.hidden_states[1:-1], output.seq_relationship_logits))


POOLED = Style(SEGMENTS.draw, _ask_all, _pooled)
SPAN = Style(SEGMENTS.draw, SEGMENTS.ask, _span)
PAIR = Style(SEGMENTS.draw, _ask_pair, _pair)


REPLACED = Style(SEGMENTS.draw, SEGMENTS.ask, lambda out: Answer(out.logits[..., None], tuple(out.hidden_states[1:-1])))

ORDER = Style(
    SEGMENTS.draw,
    _ask_pair,
    lambda out: Answer(out.prediction_logits, (*out.hidden_states[1:-1], out.sop_logits)),
)

# long enough for distances that share a bucket
LONG = Style(lambda config: {"input_ids": integers(5, config["vocab_size"], 2, 40)}, TEXT.ask, TEXT.read)
LONG_POOLED = Style(LONG.draw, _ask_all, _pooled)


def _blocked(config: Mapping[str, Any]) -> Inputs:
    ids, types = (integers(low, config[size], 1, 24) for low, size in ((5, "vocab_size"), (0, "type_vocab_size")))
    return {"input_ids": ids, "token_type_ids": types}


BLOCKED = Style(_blocked, SEGMENTS.ask, SEGMENTS.read)
BLOCKED_POOLED = Style(_blocked, _ask_all, _pooled)


def _marked(config: Mapping[str, Any]) -> Inputs:
    inputs, marks = SEGMENTS.draw(config), integers(0, 2, 2, 11, seed=8)
    marks[:, 0] = 1  # always so where a text is classified
    return {**inputs, "global_attention_mask": marks}


MARKED = Style(_marked, SEGMENTS.ask, SEGMENTS.read)
MARKED_POOLED = Style(_marked, _ask_all, _pooled)


def heads(model_type: str, prefix: str, config: Mapping[str, Any], style: Style = SEGMENTS) -> tuple[Case, ...]:
    """The heads that all kin have. style: of inputs."""
    span = Style(style.draw, SEGMENTS.ask, _span)
    return (
        Case(f"{model_type} masked", f"{prefix}ForMaskedLM", config, style),
        Case(f"{model_type} classify", f"{prefix}ForSequenceClassification", {**config, **CLASSES}, style),
        Case(f"{model_type} tag", f"{prefix}ForTokenClassification", {**config, **CLASSES}, style),
        Case(f"{model_type} span", f"{prefix}ForQuestionAnswering", config, span),
    )


NUMBER = {"num_labels": 1, "classifier_dropout": 0.4}
TWO = {"problem_type": "regression", "num_labels": 2}
MANY = {"problem_type": "multi_label_classification"}
OFFSET = {**SMALL, "pad_token_id": 3, "type_vocab_size": 1, "hidden_act": "relu"}
DISTILLED = {
    "vocab_size": 61,
    "dim": 24,
    "hidden_dim": 36,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 20,
    "activation": "relu",
    "seq_classif_dropout": 0.3,
}
NARROW = {**SMALL, "embedding_size": 10, "hidden_act": "relu"}
SHARED = {**NARROW, "num_hidden_layers": 3, "num_hidden_groups": 2, "classifier_dropout_prob": 0.3}
PERMUTED = {**SMALL, "vocab_size": 23, "pad_token_id": 3, "max_position_embeddings": 60, "hidden_act": "relu"}
del PERMUTED["type_vocab_size"]
WINDOWS = {**OFFSET, "type_vocab_size": 2, "attention_window": [8, 4], "max_position_embeddings": 60}
# whole blocks, and more of them than are read as one
BLOCKS = {
    **SMALL,
    "attention_type": "block_sparse",
    "block_size": 2,
    "num_random_blocks": 1,
    "max_position_embeddings": 60,
    "use_bias": False,
    "rescale_embeddings": True,
    "hidden_act": "relu",
}
IDLE = frozenset({"bert.pooler.weight", "bert.pooler.bias"})
WHOLE = {**BLOCKS, "attention_type": "original_full", "use_bias": True, "rescale_embeddings": False}
MODERN = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "norm_eps": 0.03,
    "local_attention": 6,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 900.0,
    "local_rope_theta": 70.0,
    "pad_token_id": 3,
    "hidden_activation": "gelu",
    "classifier_activation": "silu",
}
BIASED = {f"{part}_bias": True for part in ("norm", "attention", "mlp", "classifier")}
UNTIED = {"tie_word_embeddings": False, "decoder_bias": True}
MEAN = {"classifier_pooling": "mean", "num_labels": 1}
PLACED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]}

CASES = (
    *heads("bert", "Bert", SMALL),
    Case("bert", "BertModel", {**SMALL, "hidden_act": "relu"}, POOLED),
    Case("bert pretraining", "BertForPreTraining", SMALL, PAIR),
    Case("bert regress", "BertForSequenceClassification", {**SMALL, **NUMBER}, SEGMENTS),
    Case("bert numbers", "BertForSequenceClassification", {**SMALL, **TWO}, SEGMENTS),
    Case("bert marks", "BertForSequenceClassification", {**SMALL, **CLASSES, **MANY}, SEGMENTS),
    *heads("roberta", "Roberta", OFFSET),
    Case("roberta", "RobertaModel", OFFSET, POOLED),
    Case("xlm-roberta", "XLMRobertaForMaskedLM", {**OFFSET, "type_vocab_size": 2}, SEGMENTS),
    Case("xlm-roberta score", "XLMRobertaForSequenceClassification", {**OFFSET, **NUMBER}, SEGMENTS),
    *heads("distilbert", "DistilBert", DISTILLED, TEXT),
    Case("distilbert", "DistilBertModel", {**DISTILLED, "activation": "gelu"}, TEXT),
    *heads("electra", "Electra", NARROW),
    Case("electra", "ElectraModel", {**SMALL, "embedding_size": 24}, SEGMENTS),
    Case("electra replaced", "ElectraForPreTraining", NARROW, REPLACED),
    *heads("albert", "Albert", {**SHARED, "num_hidden_groups": 1}),
    Case("albert", "AlbertModel", SHARED, POOLED),
    Case("albert pretraining", "AlbertForPreTraining", {**SHARED, "embedding_size": 24}, ORDER),
    *heads("mpnet", "MPNet", PERMUTED, LONG),
    Case("mpnet", "MPNetModel", PERMUTED, LONG_POOLED),
    *heads("longformer", "Longformer", WINDOWS, MARKED),
    Case("longformer first", "LongformerForSequenceClassification", {**WINDOWS, "num_labels": 1}, SEGMENTS),
    Case("longformer", "LongformerModel", {**WINDOWS, "attention_window": 6}, MARKED_POOLED),
    *(replace(case, idle=IDLE) for case in heads("big_bird", "BigBird", BLOCKS, BLOCKED) if "span" not in case.name),
    Case("big_bird", "BigBirdModel", {**BLOCKS, "hidden_act": "gelu"}, BLOCKED_POOLED),
    Case("big_bird full", "BigBirdForPreTraining", WHOLE, PAIR),
    *(case for case in heads("modernbert", "ModernBert", MODERN, TEXT) if "span" not in case.name),
    Case("modernbert", "ModernBertModel", {**MODERN, **BIASED, "hidden_activation": "gelu_new"}, TEXT),
    Case("modernbert untied", "ModernBertForMaskedLM", {**MODERN, **BIASED, **UNTIED}, TEXT),
    Case("modernbert score", "ModernBertForSequenceClassification", {**MODERN, **BIASED, **MEAN, **PLACED}, TEXT),
)
