"""What every published model type is held to, beside the reference library and without it.

A reference is tiny, its hyper-parameters unusual, its numbers float64, its weights drawn large, each from a generator
that depends on its saved name alone: what is stored of it is a config, the names and shapes, inputs and outputs.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.published import exact
from safetensors.torch import load_file, save_file
from torch import Tensor

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.architectures.two_towers import TwoTowersModel
from anyformer.checkpoints.foreign import Foreign
from anyformer.core.model import Model
from anyformer.core.tape import Tape
from anyformer.models.published import load_published, published
from anyformer.runs.header import read_header

STORED = Path(__file__).parent / "data"
CLOSE: Any = {"rtol": 1e-9, "atol": 1e-9}
STREAM = "body.blocks.*.stream"
ROWS, LENGTH = 2, 11


@dataclass(frozen=True)
class Answer:
    """out: what the head says. layers: the stream after each block but the last, where they are compared."""

    out: Tensor
    layers: tuple[Tensor, ...] = ()


Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Style:
    """How a kind of model is asked. draw: inputs, by transformers' names. ask: ours. read: transformers' answer."""

    draw: Callable[[Mapping[str, Any]], Inputs]
    ask: Callable[[Model, Inputs], Answer]
    read: Callable[[Any], Answer]


@dataclass(frozen=True, eq=False)
class Case:
    """One reference. name: of the line that is printed; its first word is the model type.

    reference: the class in transformers. config: for that class's config, every value unusual. std: of the weights.
    idle: tensors that the class has and never reads, which we do not write. attention: which of its implementations.
    apart: tensors that published files have and the library writes only as another's -> that one.
    whole: a decoder that sees both ways, and so needs its text whole.
    """

    name: str
    reference: str
    config: Mapping[str, Any]
    style: Style
    std: float = 0.5
    idle: frozenset[str] = frozenset()
    attention: str = "eager"
    apart: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False

    @property
    def model_type(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def path(self) -> Path:
        return STORED / f"{self.name.replace(' ', '-')}.safetensors"


def integers(low: int, high: int, *shape: int, seed: int = 7) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).integers(low, high, shape))


def numbers(*shape: int, std: float = 1.0, seed: int = 7) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).normal(0.0, std, shape))


def weight(name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """The weight of that saved name: the same on every machine."""
    return numbers(*shape, std=std, seed=zlib.crc32(name.encode()))


LABELS = {"token_type_ids": "segment", "global_attention_mask": "global"}


def labels(inputs: Inputs) -> Inputs:
    """What is told of tokens, under our names."""
    return {LABELS[name]: value for name, value in inputs.items() if name in LABELS}


def enters(inputs: Inputs) -> Tensor:
    """What a model reads, which for translators is the source."""
    return next(inputs[name] for name in ("input_ids", "pixel_values", "input_features") if name in inputs)


def _text(config: Mapping[str, Any]) -> Inputs:
    return {"input_ids": integers(5, config["vocab_size"], ROWS, LENGTH)}  # the first ones are often special


def _ask(model: Model, inputs: Inputs) -> Answer:
    tape = Tape([STREAM])
    out = model(enters(inputs), tape=tape, labels=labels(inputs))
    return Answer(out, tuple(tape.values.values())[:-1])


def _answer(output: Any) -> Answer:
    out = output.logits if "logits" in output else output.last_hidden_state
    return Answer(out, tuple(output.hidden_states[1:-1]))


def _two_texts(config: Mapping[str, Any]) -> Inputs:
    ids = integers(5, config["vocab_size"], ROWS, LENGTH + 4)
    return {"input_ids": ids[:, :LENGTH].contiguous(), "decoder_input_ids": ids[:, -7:].contiguous()}


def _translate(model: Model, inputs: Inputs) -> Answer:
    assert isinstance(model, EncoderDecoderModel)
    return Answer(model(inputs["decoder_input_ids"], sources={"source": model.encode(enters(inputs))}))


def _translated(output: Any) -> Answer:
    return Answer(output.logits if "logits" in output else output.last_hidden_state)


def _sound(config: Mapping[str, Any]) -> Inputs:
    frames = 2 * config["max_source_positions"]
    ids = integers(5, config["vocab_size"], ROWS, 7)
    return {"input_features": numbers(ROWS, config["num_mel_bins"], frames), "decoder_input_ids": ids}


def _pixels(config: Mapping[str, Any]) -> Inputs:
    size = config["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return {"pixel_values": numbers(ROWS, config["num_channels"], height, width)}


def _seen(output: Any) -> Answer:
    out = output.logits if "logits" in output else output.pooler_output
    return Answer(out, tuple(output.hidden_states[1:-1]))


def _pairs(config: Mapping[str, Any]) -> Inputs:
    text, image = config["text_config"], config["vision_config"]
    end, size = text["vocab_size"] - 1, image["image_size"]
    ids = integers(5, end, ROWS, LENGTH)
    ids[0, -1] = ids[1, -4] = end  # texts of two lengths
    return {"input_ids": ids, "pixel_values": numbers(ROWS + 1, image["num_channels"], size, size)}


def _compared(model: Model, inputs: Inputs) -> Answer:
    assert isinstance(model, TwoTowersModel)
    ids = inputs["input_ids"]
    lengths = (ids == ids.max()).int().argmax(1) + 1
    return Answer(model.logits(model(ids, lengths=lengths), model.image(inputs["pixel_values"])))


def _compared_whole(model: Model, inputs: Inputs) -> Answer:
    assert isinstance(model, TwoTowersModel)
    return Answer(model.logits(model(inputs["input_ids"]), model.image(inputs["pixel_values"])))


def _segments(config: Mapping[str, Any]) -> Inputs:
    return {**_text(config), "token_type_ids": integers(0, config["type_vocab_size"], ROWS, LENGTH)}


TEXT = Style(_text, _ask, _answer)
SEGMENTS = Style(_segments, _ask, _answer)
PAIRS = Style(_pairs, _compared, lambda output: Answer(output.logits_per_text))
PAIRS_WHOLE = Style(_pairs, _compared_whole, lambda output: Answer(output.logits_per_text))
PIXELS = Style(_pixels, _ask, _seen)
PATCHES = Style(_pixels, _ask, _answer)
SOUND = Style(_sound, _translate, _translated)
TWO_TEXTS = Style(_two_texts, _translate, _translated)


@dataclass(frozen=True)
class Reference:
    """A reference's config and tensors as files have them, what went in, and what came out."""

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    inputs: Inputs
    answer: Answer

    def published(self, case: Case) -> Foreign:
        tensors = {name: weight(name, shape, case.std) for name, shape in self.shapes.items()}
        return Foreign(self.config, tensors)


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """A folder as other programs read it."""
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})


def opened(case: Case, folder: Path) -> Any:
    """What transformers reads in a folder, in float64: it is called within `exact`."""
    cls = getattr(pytest.importorskip("transformers"), case.reference)
    model, told = cls.from_pretrained(
        folder,
        dtype=torch.float64,
        attn_implementation=case.attention,
        experts_implementation="eager",
        output_loading_info=True,
    )
    odd = {key: left for key, names in told.items() if (left := set(names) - case.idle)}
    assert not odd, f"transformers reads this folder with {odd}"
    return model.eval()


@torch.no_grad()
def asked(case: Case, model: Any, inputs: Inputs) -> Answer:
    return case.style.read(model(**inputs, output_hidden_states=True))


@torch.no_grad()
def made(case: Case) -> Reference:
    """The reference built in process, saved, its saved tensors drawn anew, and asked."""
    library = pytest.importorskip("transformers")
    cls = getattr(library, case.reference)
    with tempfile.TemporaryDirectory() as name, quiet(library):
        folder = Path(name)
        cls(cls.config_class(**case.config)).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        shapes = {name: tuple(tensor.shape) for name, tensor in load_file(folder / "model.safetensors").items()}
        shapes |= {name: shapes[owner] for name, owner in case.apart.items()}
        write(folder, config, {name: weight(name, shape, case.std) for name, shape in shapes.items()})
        inputs = case.style.draw(case.config)
        with exact():
            return Reference(config, shapes, inputs, asked(case, opened(case, folder), inputs))


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Without transformers' messages and bars."""
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    yield


def store(case: Case) -> None:
    """A reference for those who do not have the library."""
    reference = made(case)
    about = {"config": json.dumps(reference.config), "shapes": json.dumps(reference.shapes)}
    layers = {f"layer.{index}": layer.contiguous() for index, layer in enumerate(reference.answer.layers)}
    tensors = {**{f"input.{name}": value for name, value in reference.inputs.items()}, **layers}
    save_file({**tensors, "out": reference.answer.out.contiguous()}, case.path, about)


def stored(case: Case) -> Reference:
    tensors, about = load_file(case.path), read_header(case.path).metadata
    inputs = {name.removeprefix("input."): value for name, value in tensors.items() if name.startswith("input.")}
    layers = tuple(tensors[f"layer.{index}"] for index in range(sum(name.startswith("layer.") for name in tensors)))
    shapes = {name: tuple(shape) for name, shape in json.loads(about["shapes"]).items()}
    return Reference(json.loads(about["config"]), shapes, inputs, Answer(tensors["out"], layers))


def same(ours: Answer, theirs: Answer) -> None:
    for index, pair in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        torch.testing.assert_close(*pair, **CLOSE, msg=lambda text, index=index: f"after block {index}: {text}")
    torch.testing.assert_close(ours.out, theirs.out, **CLOSE)


def ours(case: Case, reference: Reference) -> Model:
    return load_published(reference.published(case), case.name)


def exported(case: Case, reference: Reference) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What we write of what we read."""
    return published(ours(case, reference), case.model_type)
