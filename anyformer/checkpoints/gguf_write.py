"""A GGUF file out: F32, F16 or Q8_0, a tensor at a time, whole or not at all."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anyformer.checkpoints.foreign import Foreign
from anyformer.checkpoints.gguf import TYPES
from anyformer.checkpoints.gguf_models import Plan, plan
from anyformer.core.errors import ConfigError
from anyformer.core.extras import need
from anyformer.runs.files import DISK, Files, renamed

Type = Literal["F32", "F16", "Q8_0"]
FILE_TYPES: dict[Type, int] = {"F32": 0, "F16": 1, "Q8_0": 7}
HALF = 65504.0  # the largest number of float16


def write_gguf(model: Foreign, path: Path, kind: Type, files: Files = DISK) -> None:
    """Writes a model's matrices as `kind`; vectors stay F32, and rows that Q8_0 cannot cut into blocks are F16."""
    planned = plan(model)
    with renamed(files, path) as temporary:
        _write(planned, temporary, kind)
        files.fsync(temporary)


def _write(planned: Plan, path: Path, kind: Type) -> None:
    gguf = need("gguf", "gguf")
    writer = gguf.GGUFWriter(path, planned.architecture)
    try:
        writer.add_file_type(FILE_TYPES[kind])
        if kind == "Q8_0":
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in planned.metadata.items():
            _add(writer, key, value)
        types: dict[str, Type] = {}
        for name in planned.tensors:
            shape = planned.tensors[name].shape
            types[name] = _type(shape, kind)
            _, numbers, size = TYPES[types[name]]
            dtype, last = {"F32": (np.float32, 1), "F16": (np.float16, 1), "Q8_0": (np.uint8, size)}[types[name]]
            written = (*shape[:-1], shape[-1] // numbers * last)
            writer.add_tensor_info(
                name, written, np.dtype(dtype), prod(shape) // numbers * size, gguf.GGMLQuantizationType[types[name]]
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, made in types.items():
            writer.write_tensor_data(_data(planned, name, made, gguf))
    finally:
        writer.close()


def _add(writer: Any, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _type(shape: tuple[int, ...], kind: Type) -> Type:
    """As llama.cpp's own converter chooses."""
    if len(shape) == 1:
        return "F32"
    return "F16" if kind == "Q8_0" and shape[-1] % TYPES[kind][1] else kind


def _data(planned: Plan, name: str, kind: Type, gguf: Any) -> np.ndarray[Any, Any]:
    tensor = planned.tensors[name].detach().cpu().contiguous()
    most = HALF * 127 if kind == "Q8_0" else HALF
    if kind != "F32" and not bool((tensor.abs() <= most).all()):
        raise ConfigError(
            f"{name} has values that {kind} cannot hold, {float(tensor.abs().max())} one of them: use F32"
        )
    return gguf.quantize(tensor.numpy(), gguf.GGMLQuantizationType[kind])
