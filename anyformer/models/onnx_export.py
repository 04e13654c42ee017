"""A trained model out as ONNX graphs, which other runtimes compute without us and without torch.

Sizes of batches and texts stay free. All graphs of a folder share one file of weights; a file of JSON says what goes
into them, what comes out, and how a past begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyformer import __version__
from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.architectures.two_towers import TwoTowersModel
from anyformer.core.errors import ConfigError
from anyformer.core.extras import need
from anyformer.core.model import Model
from anyformer.data.tokenizer import TextTokenizer
from anyformer.models.export import new_folder
from anyformer.models.onnx_graphs import Graph, graph_of, quiet
from anyformer.models.onnx_plans import Steps, whole
from anyformer.runs.files import DISK, Chunk, atomic_write

WHOLE, STEP, ENCODER, IMAGE = "model.onnx", "decoder_step.onnx", "encoder.onnx", "image.onnx"
WEIGHTS, ABOUT = "model.onnx_data", "anyformer.json"
PAGE = 4096  # tensors in the file of weights begin at multiples of it, so that runtimes can map them
SMALL = 1024  # bytes of a tensor that stands in the graph itself


def export_onnx(model: Model, folder: Path) -> list[str]:
    """Writes a folder of ONNX graphs, their weights and what one must know to run them. Returns what to tell."""
    checker = need("onnx", "onnx").checker
    need("onnxscript", "onnx")
    with torch.no_grad(), quiet(), new_folder(folder) as made:
        graphs, notes = graphs_of(model.eval())
        atomic_write(DISK, made / WEIGHTS, moved_out([graph.model for graph in graphs.values()]))
        for name, graph in graphs.items():
            atomic_write(DISK, made / name, bytes_of(graph.model))
            checker.check_model(made / name)
        told = json.dumps(about(model, graphs), indent=2, ensure_ascii=False, allow_nan=False)
        atomic_write(DISK, made / ABOUT, told.encode() + b"\n")
        for name, texts in text_sides(model).items():
            texts.save(made / f"{name}.json")
    if next(model.parameters()).dtype == torch.bfloat16:
        notes.append("few runtimes compute in bfloat16: with --dtype float32 all of them do")
    return notes


def graphs_of(model: Model) -> tuple[dict[str, Graph], list[str]]:
    """The graphs of a model, by the names of their files, and what is left out."""
    if isinstance(model, EncoderDecoderModel):
        steps = Steps(model)
        return {ENCODER: graph_of(model, steps.encoder()), STEP: step_of(steps)}, []
    if isinstance(model, TwoTowersModel):
        image = graph_of(model.image, whole(model.image, "image_embeds"))
        return {WHOLE: graph_of(model, whole(model, "text_embeds")), IMAGE: image}, []
    if not steps_through(model):
        return {WHOLE: graph_of(model, whole(model))}, []
    step = step_of(Steps(model))
    try:
        return {WHOLE: graph_of(model, whole(model)), STEP: step}, []
    except ConfigError as error:
        return {STEP: step}, [f"{WHOLE} is left out, {STEP} reads any text: {error}"]


def step_of(steps: Steps) -> Graph:
    """Any number of tokens at a time, or one, where a layer computes something else for each number."""
    try:
        return graph_of(steps.model, steps.plan(free=True))
    except ConfigError:
        return graph_of(steps.model, steps.plan(free=False))


def steps_through(model: Model) -> bool:
    """Whether its texts may come in pieces."""
    try:
        model.init_state(1)
    except ValueError:
        return False
    return True


def moved_out(models: list[Any]) -> Iterator[Chunk]:
    """Makes large tensors of all graphs refer to the file of weights, each once; then the bytes of that file."""
    import onnx_ir as ir

    begins: dict[object, tuple[int, Any]] = {}
    at = 0
    for model in models:
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor.nbytes < SMALL:
                continue
            raw = getattr(tensor, "raw", None)
            key = (raw.data_ptr(), raw.dtype, raw.shape, raw.stride()) if isinstance(raw, Tensor) else id(tensor)
            if key not in begins:
                at += -at % PAGE
                begins[key] = at, tensor
                at += tensor.nbytes
            value.const_value = ir.ExternalTensor(
                WEIGHTS, begins[key][0], tensor.nbytes, tensor.dtype, shape=tensor.shape, name=value.name
            )
    return written_out(list(begins.values()))


def written_out(tensors: list[tuple[int, Any]]) -> Iterator[Chunk]:
    """The bytes of tensors, each from where it begins."""
    at = 0
    for begins, tensor in tensors:
        yield bytes(begins - at)
        yield tensor.tobytes()
        at = begins + tensor.nbytes


def bytes_of(model: Any) -> bytes:
    """A graph as the bytes of its file."""
    import onnx_ir as ir

    return ir.to_proto(model).SerializeToString()


def about(model: Model, graphs: Mapping[str, Graph]) -> dict[str, Any]:
    """What one must know to run the graphs."""
    told: dict[str, Any] = {"version": 1, "anyformer": __version__, "vocabulary": model.spec.vocabulary}
    told["longest"] = model.longest
    if isinstance(model, TwoTowersModel):
        told["scale"] = model.scale.exp().item()
        told["bias"] = None if model.bias is None else model.bias.item()
    for name, texts in text_sides(model).items():
        told[name] = {"file": f"{name}.json", **around(model, texts)}
    told["graphs"] = {name: ports(graph) for name, graph in graphs.items()}
    return told


def text_sides(model: Model) -> dict[str, TextTokenizer]:
    """The tokenizers of a model, by the names of their files."""
    sides = {"tokenizer": model.tokenizer}
    if model.source_tokenizer is not model.tokenizer:
        sides["source_tokenizer"] = model.source_tokenizer
    return {name: texts for name, texts in sides.items() if isinstance(texts, TextTokenizer)}


def around(model: Model, texts: TextTokenizer) -> dict[str, Any]:
    """The ids that no text has: before a prompt, on either side of what an encoder reads, at an end, for padding."""
    two, before, after = isinstance(model, EncoderDecoderModel), texts.roles.before, texts.roles.after
    begin = texts.first if two else texts.begin
    prompt = ([] if begin is None else [begin]) if two or before is None else before
    sides = ([], [] if texts.end is None else [texts.end]) if before is None or after is None else (before, after)
    ends = sorted(texts.ends, key=lambda id: id != texts.end)
    return {"prompt": prompt, "around": sides, "ends": ends, "pad": texts.pad}


def ports(graph: Graph) -> dict[str, Any]:
    """The inputs and outputs of a graph."""
    sides = {"inputs": graph.model.graph.inputs, "outputs": graph.model.graph.outputs}
    told = {
        side: [
            {
                "name": value.name,
                "dtype": value.dtype.numpy().name,
                "shape": [size if isinstance(size, int) else str(size) for size in value.shape],
            }
            for value in values
        ]
        for side, values in sides.items()
    }
    for port in told["inputs"]:
        if port["name"] in graph.starts:
            port["start"] = start(graph.starts[port["name"]])
    return told


def start(row: Tensor) -> Any:
    """A number that stands everywhere, or the numbers of a row."""
    values = row.flatten()
    if not values.numel():
        return 0
    return values[0].item() if bool((values == values[0]).all()) else row[0].tolist()
