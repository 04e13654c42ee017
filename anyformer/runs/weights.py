"""Tensors in a safetensors file: written in one pass, read with their hash, without a second copy in memory."""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from anyformer.core.errors import InputError
from anyformer.runs.files import Chunk, Files, atomic_write
from anyformer.runs.header import CODES, DTYPES, MAX_TENSORS, bad_name, check_header, opened

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 2**20  # numbers that are looked at at a time


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """All tensors of a file, on the CPU, each with memory of its own."""
    return read_tensors(path)[0]


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], str]":
    """All tensors of a file and the sha256 of the very bytes they were made from."""
    import torch

    tensors: dict[str, Tensor] = {}
    with opened(path) as file:
        header = check_header(file, path)
        digest = hashlib.sha256(header.raw)
        for name, entry in header.entries.items():
            tensor = torch.empty(entry.shape, dtype=getattr(torch, DTYPES[entry.dtype][0]))
            memory = _memory(tensor)
            if (got := file.readinto(memory)) != len(memory):
                raise InputError(f"{path}: ends within {name!r}, {len(memory) - got} bytes early: it is damaged")
            digest.update(memory)
            tensors[name] = tensor
    return tensors, digest.hexdigest()


def save_tensors(
    files: Files, path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None
) -> str:
    """Writes tensors atomically and returns the file's sha256."""
    return atomic_write(files, path, tensor_chunks(tensors, metadata or {}))


def tensor_chunks(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> Iterator[Chunk]:
    """The bytes of a safetensors file, a tensor at a time, so that no second copy of all of them is ever held."""
    if len(tensors) > MAX_TENSORS:
        raise ValueError(f"{len(tensors)} tensors: one file holds at most {MAX_TENSORS}")
    for name, tensor in tensors.items():
        if reason := bad_name(name):
            raise ValueError(f"a tensor cannot be called {name[:80]!r}: {reason}")
        if str(tensor.dtype) not in CODES:
            raise ValueError(f"{name}: {tensor.dtype} is not written; the dtypes are {', '.join(sorted(CODES))}")
        if tensor.is_meta or str(tensor.layout) != "torch.strided":
            raise ValueError(
                f"{name}: only dense tensors that hold values are written, not {tensor.layout} on {tensor.device}"
            )
    # Wide dtypes first: every tensor then starts at a multiple of its item's size, which other readers like to map.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name in names:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        code = CODES[str(tensor.dtype)]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        yield _memory(tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous())


def count_nonfinite(tensors: "Mapping[str, Tensor]") -> dict[str, int]:
    """How many values of each tensor are infinite or not a number; tensors without any are left out."""
    return {name: count for name, tensor in tensors.items() if (count := nonfinite(tensor))}


def nonfinite(tensor: "Tensor") -> int:
    """How many values of one are."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or isfinite(abs(tensor.sum().item())):
        return 0  # one quick pass that allocates nothing: no sum is finite of which one number is not
    rows = tensor if tensor.dim() else tensor[None]
    return sum(int((~some.isfinite()).sum()) for some in rows.split(max(1, PIECE * len(rows) // rows.numel())))


def _memory(tensor: "Tensor") -> memoryview:
    """The bytes of a contiguous CPU tensor, shared with it."""
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data
