"""`plan`: what a recipe costs in parameters, arithmetic, memory and time, before anything is trained.

Sizes are counted on a model of shapes alone, so that any scale can be planned. Time comes from a few steps that are
really made, where the data is here and a step is short; else from a stated share of this machine's matrix product.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch

from anyformer.architectures.encoder_decoder import EncoderDecoder
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.spec import ModelSpec, TokenizerSpec
from anyformer.data.base import TextTokenizerSpec
from anyformer.data.corpus import Corpus, text_data
from anyformer.models.checkpoint import open_checkpoint
from anyformer.recipes.schema import Recipe
from anyformer.training.budget import Spent, in_tokens, total_steps
from anyformer.training.flops import Sketch, peak
from anyformer.training.frozen import freeze
from anyformer.training.loop import Trainer, guide_flops_a_token, objective_of
from anyformer.training.optimizers.base import axes_of, is_table, trained
from anyformer.training.train import give_guide, prepared, untrained

FLOAT32 = 4  # bytes of what is trained, whatever the precision of the products
STATED = 0.4  # MFU where nothing is measured: large models, trained with care, reach it
SECONDS, STEPS = 3.0, 10  # of a trial, at most; a first step, which is slower, comes before
PARAMETERS = 10**8  # of a model that is built for a trial, at most


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What training costs; sizes in bytes, None where they cannot be told.

    trained: parameters that are not frozen. outside_tables: those that are not looked up. row: tokens of a row, on both
    sides where there are two.
    flops_a_token: of training. counted: whether all products were; else 2 FLOPs a parameter stand for them.
    activations: of a batch. cache: of one text as long as a row; cache_a_token: what one more token adds. steps,
    tokens, flops: of the whole budget. peak: FLOPs a second of a plain product. measured: steps of the trial; 0: the
    speed is what `mfu` of the peak gives. minutes: without evaluation.
    """

    device: str
    parameters: int
    trained: int
    outside_tables: int
    row: int
    flops_a_token: float
    counted: bool
    weights: int
    gradients: int
    optimizer: int
    ema: int
    activations: int | None
    cache: int | None
    cache_a_token: float | None
    tokens_a_step: int
    steps: int
    tokens: int
    flops: float
    peak: float
    mfu: float
    tokens_per_s: float
    measured: int
    minutes: float
    notes: tuple[str, ...]


def plan(recipe: Recipe, device: torch.device, threads: int | None = None) -> Plan:
    """The plan of a recipe on a device of this machine; ConfigError for what cannot be trained."""
    if (threads := threads or recipe.training.threads) is not None:
        torch.set_num_threads(threads)
    recipe, corpus, notes = _settled(recipe)
    training, objective, sketch = recipe.training, objective_of(recipe), _sketch(recipe, notes)
    with sketch.fake:
        objective.check(sketch.model)
    if corpus is None:
        row = min(training.length, sketch.model.longest or training.length) * (2 if sketch.two else 1)
        tokens_a_step = row * training.batch * training.accumulate
    else:
        feed = objective.feed(corpus, sketch.model, training, recipe.seed)
        row = max(1, round(feed.tokens / training.batch))
        tokens_a_step = round(feed.tokens * training.accumulate)
    forward = sketch.forward(training.batch, row, training.precision)
    flops = sketch.flops_a_token(forward, training.checkpointing) + guide_flops_a_token(recipe, row)
    if forward is None:
        notes.append("what this model computes depends on values; 2 FLOPs a parameter stand for its matrix products")
    if objective.guide is not None:
        notes.append("FLOPs count a forward pass of the model that the objective looks at; its memory is not counted")
    fastest = peak(device, training.precision)
    measured, step = 0, flops * tokens_a_step / (STATED * fastest)
    if corpus is not None and step <= SECONDS / 2 and sketch.parameters <= PARAMETERS:
        measured, step = _trial(recipe, corpus, device)
    budget = in_tokens(recipe.budget, flops)
    steps = max(1, ceil(total_steps(budget, Spent(1, tokens_a_step, step), tokens_a_step)))
    cache, longer, weights = sketch.cache(row), sketch.cache(2 * row), FLOAT32 * sketch.parameters
    learnt = sum(p.numel() for p in trained(sketch.model))
    return Plan(
        device=str(device),
        parameters=sketch.parameters,
        trained=learnt,
        outside_tables=sum(p.numel() for p, axes in axes_of(sketch.model) if not is_table(axes)),
        row=row,
        flops_a_token=flops,
        counted=forward is not None,
        weights=weights,
        gradients=FLOAT32 * learnt,
        optimizer=FLOAT32 * recipe.optimizer.state_size(sketch.model),
        ema=0 if training.ema is None else weights,
        activations=None if forward is None else sketch.activations(forward, training),
        cache=cache,
        cache_a_token=None if cache is None or longer is None else (longer - cache) / row,
        tokens_a_step=tokens_a_step,
        steps=steps,
        tokens=steps * tokens_a_step,
        flops=steps * tokens_a_step * flops,
        peak=fastest,
        mfu=flops * tokens_a_step / step / fastest,
        tokens_per_s=tokens_a_step / step,
        measured=measured,
        minutes=steps * step / 60,
        notes=tuple(notes),
    )


def _settled(recipe: Recipe) -> tuple[Recipe, Corpus[Any] | None, list[str]]:
    """The recipe with its vocabulary, the data where it can be read, and what else should be said."""
    known = None if recipe.weights is None else open_checkpoint(recipe.weights).tokenizers
    try:
        return *prepared(recipe, known), []
    except InputError as error:
        note = f"planned without data, with the vocabulary that the tokenizer declares, and rows that are full: {error}"
        return replace(recipe, model=_declared(recipe, error)), None, [note]


def _sketch(recipe: Recipe, notes: list[str]) -> Sketch:
    try:
        sketch = Sketch(recipe.adapted)
    except ValueError as error:
        raise ConfigError("; ".join([str(error), *notes])) from None  # what only data knows may be missing
    freeze(sketch.model, recipe)
    return sketch


def _declared(recipe: Recipe, error: InputError) -> ModelSpec:
    """The model with the vocabulary that its tokenizer is declared with."""
    model, data = recipe.model, text_data(recipe.data)
    if isinstance(model, EncoderDecoder) and model.source_vocabulary is None and data.source_tokenizer is not None:
        model = replace(model, source_vocabulary=_size(data.source_tokenizer, error))
    return model if model.vocabulary is not None else replace(model, vocabulary=_size(data.tokenizer, error))


def _size(tokenizer: TokenizerSpec, error: InputError) -> int:
    """How many ids a tokenizer will have, as far as it is known before there is text."""
    said = tokenizer.to_dict()
    if isinstance(said.get("vocabulary"), int):
        return said["vocabulary"]
    try:
        assert isinstance(tokenizer, TextTokenizerSpec)
        return tokenizer.train((), ()).vocabulary
    except InputError:
        raise InputError(
            f"{error}; or set model.vocabulary, since only data says how many {said['kind']} there are"
        ) from None


def _trial(recipe: Recipe, corpus: Corpus[Any], device: torch.device) -> tuple[int, float]:
    """How many steps were made to see how fast they are, and the seconds of one."""
    recipe = replace(recipe, training=replace(recipe.training, compile="never"))  # compiling takes longer than a trial
    model = untrained(recipe, corpus, str(device))
    give_guide(model, recipe, corpus)
    trainer = Trainer(recipe, model, corpus, lambda report: None)
    trainer.model.train()
    trainer.step()
    began, steps = time.monotonic(), 0
    while steps < STEPS and time.monotonic() - began < SECONDS:
        trainer.step()
        steps += 1
    return steps, (time.monotonic() - began) / steps
