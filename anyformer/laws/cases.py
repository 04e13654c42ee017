"""Every row of every table of parts as cases: each part in the smallest model that has a place for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from anyformer.architectures.decoder import Decoder
from anyformer.architectures.encoder import Encoder
from anyformer.architectures.encoder_decoder import EncoderDecoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.overrides import roles
from anyformer.core.roles import AnyLayer, FeedForward, Mixer
from anyformer.core.spec import (
    EmbeddingSpec,
    FlowSpec,
    HeadSpec,
    LayerSpec,
    ModalitySpec,
    ModelSpec,
    NormSpec,
    PartSpec,
    PositionSpec,
    ResidualSpec,
    Site,
    Spec,
    from_dict,
)
from anyformer.core.tables import home, row, table
from anyformer.feedforward.mlp import MLP
from anyformer.laws import LAWS
from anyformer.laws.case import Case
from anyformer.laws.guess import FULL, HEADS, VOCABULARY, WIDTH, guess
from anyformer.patterns.base import Ahead, Pattern
from anyformer.patterns.causal import Causal
from anyformer.patterns.full import Full
from anyformer.positions.base import OnEmbeddings
from anyformer.positions.none import NoPosition
from anyformer.positions.rates.base import Rates
from anyformer.positions.rotary import Rotary
from anyformer.residuals.pre import Pre

# The tables whose rows stand in models.
TABLES = (
    "positions.rates",
    *("patterns", "positions", "norms", "feedforward", "residuals", "flows", "memory", "attention", "blocks"),
    *("embeddings", "heads", "architectures"),
)
BASES = (PartSpec, ModelSpec, Pattern, Rates)  # what can be checked
FF = MLP(hidden=20)


def all_cases() -> list[Case]:
    """The cases of every row, other people's included."""
    return [
        case
        for name in TABLES
        for kind in table(f"anyformer.{name}")
        for case in cases_of(row(f"anyformer.{name}", kind), f"{name}.{kind}")
    ]


def cases_of(cls: type[Any], name: str) -> list[Case]:
    """The cases of one spec class: its own examples, or one that is guessed."""
    if unknown := set(cls.EXEMPT) - set(LAWS) - {need for law in LAWS.values() for need in law.needs}:
        raise ValueError(f"{cls.__name__}.EXEMPT: there is no law {sorted(unknown)}; there are: {', '.join(LAWS)}")
    parts = cls.examples() or (guess(cls),)
    names = [name] if len(parts) == 1 else [f"{name}-{index}" for index in range(len(parts))]
    return [case for part, label in zip(parts, names, strict=True) for case in cases_around(part, label)]


def cases_around(part: Spec, name: str) -> Iterator[Case]:
    """The cases of one example."""
    exempt = type(part).EXEMPT
    if not isinstance(part, Pattern):
        spec, at = around(part)
        yield Case(name, part, spec, at, exempt)
        return
    # A pattern that looks ahead is tried as what people make of it, and by itself, when it has to refuse a state.
    tame = {Ahead.NONE: part, Ahead.PREFIX: Causal() | part, Ahead.ALL: Causal() & part}[part.ahead()]
    yield Case(name, tame, *around(tame), exempt)
    if part.ahead() == Ahead.ALL:
        why = f"the pattern {str(part)!r} lets tokens see later ones"
        yield Case(f"{name}-alone", part, *around(part), {**exempt, "state": why})


def around(part: Any) -> tuple[ModelSpec, str]:
    """A model with the part in its place, and the path of that place."""
    block = Block(mixer=mixer(), ff=FF)
    first = "body.blocks.0"
    match part:
        case ModelSpec():
            return declared(part), ""
        case Pattern():
            return decoder(Block(mixer=mixer(pattern=part), ff=FF)), f"{first}.mixer.pattern"
        case PositionSpec() if on_embeddings(part):
            return decoder(Block(mixer=mixer(position=NoPosition()), ff=FF), position=part), "position"
        case PositionSpec():
            return decoder(Block(mixer=mixer(position=part), ff=FF)), f"{first}.mixer.position"
        case Rates():
            return decoder(Block(mixer=mixer(position=Rotary(scaling=part)), ff=FF)), f"{first}.mixer.position.scaling"
        case NormSpec():
            return decoder(Block(mixer=mixer(), ff=FF, residual=Pre(norm=part))), f"{first}.residual.norm"
        case ResidualSpec():
            return decoder(Block(mixer=mixer(), ff=FF, residual=part)), f"{first}.residual"
        case FlowSpec():
            return decoder(block, block, flow=part), "body.flow"
        case ModalitySpec():
            full = Block(mixer=mixer(pattern=Full(), position=NoPosition()), ff=FF)
            return declared(Encoder(width=WIDTH, body=Stack(blocks=(full,)), embedding=part)), "embedding"
        case EmbeddingSpec():
            return decoder(block, embedding=part), "embedding"
        case HeadSpec():
            return decoder(block, head=part), "head"
        case LayerSpec() if "source" in part.fields():
            encoder = from_dict(AnyLayer, {"kind": "stack", "blocks": [FULL]})
            body = Stack(blocks=(Block(mixer=mixer(), cross=part, ff=FF),))
            model = EncoderDecoder(width=WIDTH, vocabulary=VOCABULARY, encoder=encoder, decoder=body)
            return declared(model), "decoder.blocks.0.cross"
        case LayerSpec() if holds_layers(part):
            return decoder(part), first
        case LayerSpec() if (home(type(part)) or ("",))[0] == "anyformer.feedforward":
            return decoder(Block(mixer=mixer(), ff=part)), f"{first}.ff"
        case LayerSpec():
            return decoder(Block(mixer=part, ff=FF)), f"{first}.mixer"
    raise ValueError(f"{type(part).__name__} is no part that stands in a model")


def mixer(**fields: Any) -> Softmax:
    """Grouped heads, rotary positions."""
    return Softmax(**{"heads": HEADS, "kv_heads": 2, "position": Rotary(), **fields})


def decoder(*blocks: LayerSpec, flow: FlowSpec | None = None, **fields: Any) -> ModelSpec:
    """A decoder of these blocks."""
    body = Stack(blocks=blocks) if flow is None else Stack(blocks=blocks, flow=flow)
    return declared(Decoder(width=WIDTH, vocabulary=VOCABULARY, body=body, **fields))


def declared(model: ModelSpec) -> ModelSpec:
    """The model with all labels declared that its parts read."""
    return dataclasses.replace(model, labels=tuple(sorted({*model.labels, *labels_read(model)})))


def labels_read(part: Spec) -> frozenset[str]:
    """The labels of tokens that the parts within read: patterns, and what names one in its field `label`."""
    inner = list(parts_in(part))
    patterns = [pattern.labels() for pattern in inner if isinstance(pattern, Pattern)]
    return frozenset().union(*patterns, (p.label for p in inner if "label" in p.fields()))  # pyright: ignore[reportAttributeAccessIssue]


def on_embeddings(part: PositionSpec) -> bool:
    """Whether a position scheme acts on embeddings: it is built to see what it is."""
    with torch.device("meta"):
        labels, size = labels_read(part), WIDTH // HEADS
        site = Site("position", WIDTH, vocabulary=VOCABULARY, heads=HEADS, head_size=size, labels=labels)
        return isinstance(part.build(site), OnEmbeddings)


def holds_layers(part: LayerSpec) -> bool:
    """Whether mixers, feed-forwards or other layers stand in its fields."""
    layers = {str(role) for role in (AnyLayer, FeedForward, Mixer)}
    return any(str(role) in layers or "anyformer.attention" in str(role) for role in roles(type(part)).values())


def parts_in(value: Any) -> Iterator[Spec]:
    """The spec and all specs within it."""
    if isinstance(value, tuple):
        for item in value:
            yield from parts_in(item)
    elif isinstance(value, Spec):
        yield value
        for name in value.fields():
            yield from parts_in(getattr(value, name))


def with_patterns(value: Any, change: Callable[[Pattern], Pattern]) -> Any:
    """The spec with every pattern changed by which tokens of the text see each other; a source's are left alone."""
    if isinstance(value, Pattern):
        return change(value)
    if isinstance(value, tuple):
        return tuple(with_patterns(item, change) for item in value)
    if not isinstance(value, Spec) or "source" in value.fields():
        return value
    kept = {name: getattr(value, name) for name in value.fields() if name != "encoder"}
    new = {name: with_patterns(old, change) for name, old in kept.items()}
    return dataclasses.replace(value, **{name: part for name, part in new.items() if part is not kept[name]})
