"""BERT and its kin: each class of head, token types, unusual sizes."""

from collections.abc import Mapping
from typing import Any

import torch
from golden.published import SEGMENTS, STREAM, TEXT, Answer, Case, Inputs, Style

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
    labels = {"segment": inputs["token_type_ids"]} if "token_type_ids" in inputs else None
    return Answer(model(inputs["input_ids"], tape=tape, labels=labels), tuple(tape.values.values()))


def _pooled(output: Any) -> Answer:
    return Answer(output.pooler_output, tuple(output.hidden_states[1:]))


def _span(output: Any) -> Answer:
    return Answer(torch.stack([output.start_logits, output.end_logits], -1), tuple(output.hidden_states[1:-1]))


def _ask_pair(model: Model, inputs: Inputs) -> Answer:
    """With what the second head says in the place of a layer."""
    answer = SEGMENTS.ask(model, inputs)
    assert isinstance(model.head, PretrainingHead)
    pair = model.read(inputs["input_ids"], model.head.pair, labels={"segment": inputs["token_type_ids"]})
    return Answer(answer.out, (*answer.layers, pair))


def _pair(output: Any) -> Answer:
    return Answer(output.prediction_logits, (*output.hidden_states[1:-1], output.seq_relationship_logits))


POOLED = Style(SEGMENTS.draw, _ask_all, _pooled)
SPAN = Style(SEGMENTS.draw, SEGMENTS.ask, _span)
PAIR = Style(SEGMENTS.draw, _ask_pair, _pair)


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

CASES = (
    *heads("bert", "Bert", SMALL),
    Case("bert", "BertModel", {**SMALL, "hidden_act": "relu"}, POOLED),
    Case("bert pretraining", "BertForPreTraining", SMALL, PAIR),
    Case("bert regress", "BertForSequenceClassification", {**SMALL, **NUMBER}, SEGMENTS),
    Case("bert numbers", "BertForSequenceClassification", {**SMALL, **TWO}, SEGMENTS),
)
