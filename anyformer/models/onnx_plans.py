"""What a model computes in an ONNX graph: pure functions of named tensors, with examples of what goes in.

A past goes in and comes out as flat tensors, each named by its path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from anyformer.architectures.encoder_decoder import SOURCE, EncoderDecoderModel
from anyformer.core.clock import clock
from anyformer.core.context import Context, Source
from anyformer.core.modality import Modality, placed
from anyformer.core.model import Model
from anyformer.core.state import ModelPast
from anyformer.embeddings.frames import FrameEmbedding
from anyformer.embeddings.patches import PatchEmbedding

IDS, MASK, HIDDEN, LOGITS = "input_ids", "attention_mask", "last_hidden_state", "logits"
THEIRS = {"segment": "token_type_ids", "global": "global_attention_mask"}  # what others call our labels
ROWS, TOKENS, EARLIER, SOURCE_TOKENS = 2, 7, 5, 9  # of the examples: sizes that differ
UNREAD = ("past.since", "past.high")  # only where tokens are forgotten again is anything read of them

Given = dict[str, Tensor]
Axes = dict[str, dict[int, str]]


@dataclass(frozen=True)
class Plan:
    """A pure function of named tensors.

    given: examples of what goes in. axes: of each, which sizes stay free, and what they are called. starts: of what an
    earlier call gives, a row as it is before the first call.
    """

    run: Callable[[Given], Given]
    given: Given
    axes: Axes
    starts: Given


def tokens(model: Model, vocabulary: int | None, length: int) -> Given:
    """Some ids, all of them real."""
    ids = torch.arange(ROWS * length, device=next(model.parameters()).device).view(ROWS, length)
    return {IDS: ids % (vocabulary or 1), MASK: torch.ones_like(ids)}


def texts(model: Model, length: int, free: bool = True) -> tuple[Given, Axes]:
    """Tokens, and what is told of them. free: texts of any length."""
    given = tokens(model, model.spec.vocabulary, length)
    given |= {THEIRS.get(label, label): torch.zeros_like(given[IDS]) for label in model.labels}
    if model.rank > 1:
        given["coords"] = given[IDS].new_zeros(ROWS, length, model.rank)
    return given, {name: {0: "batch", 1: "length"} if free else {0: "batch"} for name in given}


def entering(embedding: Modality, longest: int | None) -> tuple[Given, Axes]:
    """What enters in the place of tokens."""
    name = {PatchEmbedding: "pixel_values", FrameEmbedding: "input_features"}.get(type(embedding), "inputs")
    weight = next(embedding.parameters())
    return {name: weight.new_zeros(ROWS, *embedding.shape(longest or TOKENS))}, {name: {0: "batch"}}


def stepped(model: Model, given: Given, past: ModelPast | None) -> tuple[Tensor, ModelPast | None]:
    """The model's pure step."""
    labels = {label: given[THEIRS.get(label, label)] for label in model.labels}
    return model.step(given[IDS], given[MASK] > 0, labels, past, coords=given.get("coords"))


def answer(model: Model) -> str:
    """What comes out of a model is called."""
    return HIDDEN if model.head is None else LOGITS


def whole(model: Model, output: str | None = None) -> Plan:
    """All that a model reads, in one call. output: what the answer is called, if not as usual."""
    name = output or answer(model)
    if isinstance(model.embedding, Modality):
        given, axes = entering(model.embedding, model.longest)
        return Plan(lambda given: {name: model.step(next(iter(given.values())))[0]}, given, axes, {})
    return Plan(lambda given: {name: stepped(model, given, None)[0]}, *texts(model, TOKENS), {})


class Steps:
    """A text in pieces: what is passed from call to call, as flat named tensors."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.source, self.source_axes = source_of(model) if isinstance(model, EncoderDecoderModel) else ({}, {})
        past = self.start(self.source)
        self.begun, self.tree = flat(past), pytree.tree_structure(past)
        bare = flat(model.init_state(ROWS).past)
        shorter, longer = (self.after(past, length) for length in (EARLIER, EARLIER + 1))
        self.sourced = [name for name, x in self.begun.items() if x.shape != bare[name].shape]
        self.held = {name: x for name, x in shorter.items() if x.numel() and name not in UNREAD}
        self.changing = [name for name, x in self.held.items() if x is not self.begun[name]]
        self.axes: Axes = {name: {0: "batch"} for name in self.held}
        self.axes |= {name: {0: "batch", 1: "source_length"} for name in self.sourced}
        self.axes |= {n: {0: "batch", 1: "past"} for n, x in self.held.items() if x.shape != longer[n].shape}

    def start(self, source: Given) -> ModelPast:
        """The past before the first token, of as many rows as the source has."""
        if not isinstance(self.model, EncoderDecoderModel):
            return self.model.init_state(ROWS).past
        read = encoded(self.model, source)
        return self.model.init_state(read.vectors.shape[0], sources={SOURCE: read}).past

    def after(self, past: ModelPast, length: int) -> Given:
        """The past after so many tokens."""
        return flat(stepped(self.model, texts(self.model, length)[0], past)[1])

    def past(self, given: Given) -> ModelPast:
        """The tree of what came in; what holds nothing is made."""
        rows = given[IDS].shape[0]
        leaves = [
            given["past.clock"] if name in UNREAD else given.get(name, x.new_zeros(rows, *x.shape[1:]))
            for name, x in self.begun.items()
        ]
        return pytree.tree_unflatten(leaves, self.tree)

    def step(self, given: Given) -> Given:
        """Some tokens more."""
        out, past = stepped(self.model, given, self.past(given))
        after = flat(past)
        return {answer(self.model): out, **{name.replace("past", "present", 1): after[name] for name in self.changing}}

    def plan(self, free: bool) -> Plan:
        """free: any number of tokens at a time; else one."""
        given, axes = texts(self.model, TOKENS if free else 1, free)
        starts = {name: self.begun[name][:1] for name in self.held if name not in self.sourced}
        return Plan(self.step, given | self.held, axes | self.axes, starts)

    def encoder(self) -> Plan:
        """The source as vectors, and what the steps read of it."""

        def run(given: Given) -> Given:
            assert isinstance(self.model, EncoderDecoderModel)
            read = encoded(self.model, given)
            begun = flat(self.model.init_state(read.vectors.shape[0], sources={SOURCE: read}).past)
            return {HIDDEN: read.vectors, **{name: begun[name] for name in self.sourced}}

        return Plan(run, self.source, self.source_axes, {})


def flat(past: ModelPast | None) -> Given:
    """Every tensor of a past, by its path."""
    leaves, _ = pytree.tree_flatten_with_path(past)
    return {"past" + re.sub(r"\['?(\w+)'?\]", r".\1", pytree.keystr(path)): x for path, x in leaves}


def source_of(model: EncoderDecoderModel) -> tuple[Given, Axes]:
    """What the encoder reads."""
    entrance = model.enter_source
    if isinstance(entrance.embedding, Modality):
        return entering(entrance.embedding, entrance.longest)
    given = tokens(model, model.source_vocabulary, SOURCE_TOKENS)
    return given, {name: {0: "batch", 1: "source_length"} for name in given}


def encoded(model: EncoderDecoderModel, given: Given) -> Source:
    """`model.encode` without its checks, which ask for numbers."""
    entrance, x = model.enter_source, next(iter(given.values()))
    places, coords = placed(x, entrance.embedding, None)
    real = given[MASK] > 0 if MASK in given else None
    where, _ = clock(places, real, {}, None, coords)
    return Source(model.encoder(entrance(x, where), Context(where, straight=real is None), None)[0], where)
