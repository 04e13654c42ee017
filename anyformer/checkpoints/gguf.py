"""GGUF, the files of llama.cpp (ggml-org): metadata and tensors, many of them in blocks of a few bits a number.

"GGUF", version, counts; keys with their values; names, shapes, types and offsets of tensors; then their bytes. Integers
are little-endian, shapes begin with the axis that moves fastest, and tensors start at multiples of the alignment.

Every claim is checked before anything is allocated: the `gguf` package's own reader believes counts and lengths.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyformer.checkpoints.foreign import Lazy
from anyformer.core.errors import InputError
from anyformer.core.extras import need
from anyformer.runs.header import MAX_TENSORS, bad_name, opened

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_HEADER = 2**27  # bytes; a vocabulary of 256,000 with its merges has some 2**24
MAX_ITEMS = 2**22  # values in all arrays of the metadata
MAX_KEYS = 2**16
MAX_KEY = 2**16 - 1  # bytes; the format's own limit
MAX_AXES = 4  # ggml's own limit
MAX_ALIGNMENT = 2**20
CHUNK = 2**20  # numbers that are taken out of their blocks at once

# type: (its number in the file, numbers in a block, bytes of a block)
TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "BF16": (30, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
}
NAMES = {number: name for name, (number, _, _) in TYPES.items()}
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# number of a value's type: how it is written
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
BOOL, STRING, ARRAY = 7, 8, 9


@dataclass(frozen=True)
class Block:
    """Where one tensor lies and how it is written. shape: in torch's order. start: counted from the file's."""

    type: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class Gguf:
    """A checked file. metadata: plain data, by key. blocks: how tensors lie there. tensors: float32, made on demand."""

    path: Path
    metadata: Mapping[str, Any]
    blocks: Mapping[str, Block]
    tensors: Mapping[str, Tensor]


def open_gguf(path: Path) -> Gguf:
    """The metadata of a file and its tensors, of which none is read yet."""
    with opened(path, "a GGUF file") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if (start := file.read(4)) != MAGIC:
            raise InputError(f"{path}: begins with {start!r}, not with {MAGIC!r}: this is no GGUF file")
        if size < 24:
            raise InputError(f"{path}: {size} bytes long, but a GGUF file has at least 24: it is cut short")
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    walk = Walk(path, pages, size)
    metadata, blocks = walk.header()
    return Gguf(path, metadata, blocks, Lazy({name: partial(_numbers, pages, block) for name, block in blocks.items()}))


class Walk:
    """A walk over a header, which never goes past its end, nor past what it may cost."""

    def __init__(self, path: Path, pages: mmap.mmap, size: int) -> None:
        self.path, self.pages, self.size = path, pages, size
        self.at, self.items = 4, MAX_ITEMS

    def header(self) -> tuple[dict[str, Any], dict[str, Block]]:
        version = self.scalar("I")
        if version not in VERSIONS:
            order = "; it is big-endian" if version in (v << 24 for v in VERSIONS) else ""
            raise InputError(f"{self.path}: version {version} of GGUF; those read are 2 and 3, little-endian{order}")
        tensors, keys = self.scalar("Q"), self.scalar("Q")
        for count, most, what in ((tensors, MAX_TENSORS, "tensors"), (keys, MAX_KEYS, "keys")):
            if count > most:
                raise InputError(f"{self.path}: claims {count} {what}; at most {most} are allowed")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self.text("a key", MAX_KEY)
            if not key or key in metadata:
                raise InputError(f"{self.path}: the key {key[:80]!r} {'stands twice' if key else 'is empty'}")
            metadata[key] = self.value(key)
        claims: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        for _ in range(tensors):
            name = self.text("a tensor's name", MAX_KEY)
            if reason := bad_name(name):
                raise InputError(f"{self.path}: holds a tensor called {name[:80]!r}: {reason}")
            if name in claims:
                raise InputError(f"{self.path}: {name!r} stands twice")
            claims[name] = self.claim(name)
        return metadata, self.placed(claims, metadata.get("general.alignment", 32))

    def scalar(self, code: str) -> Any:
        form = struct.Struct(f"<{code}")
        return form.unpack(self.bytes(form.size, "a number"))[0]

    def bytes(self, count: int, what: str) -> bytes:
        """The next bytes."""
        if count > self.size - self.at:
            raise InputError(
                f"{self.path}: cut short, or made up: {what} should have {count} bytes, {self.size - self.at} are left"
            )
        if self.at + count > MAX_HEADER:
            raise InputError(f"{self.path}: {what} goes past {MAX_HEADER} bytes, the most that are read as metadata")
        self.at += count
        return self.pages[self.at - count : self.at]

    def text(self, what: str, longest: int = MAX_HEADER) -> str:
        length = self.scalar("Q")
        if length > longest:
            raise InputError(f"{self.path}: {what} claims {length} bytes; at most {longest} are allowed")
        try:
            return self.bytes(length, what).decode()
        except UnicodeDecodeError:
            raise InputError(f"{self.path}: {what} is no UTF-8: the file is damaged") from None

    def value(self, key: str) -> Any:
        what = f"the value of {key[:80]!r}"
        kind = self.scalar("I")
        if kind == STRING:
            return self.text(what)
        if kind != ARRAY:
            return self.plain(kind, 1, what)[0]
        kind, count = self.scalar("I"), self.scalar("Q")
        if count > self.items:
            raise InputError(f"{self.path}: {what} claims {count} items; at most {MAX_ITEMS} are allowed in all")
        self.items -= count
        if kind == STRING:
            return [self.text(what) for _ in range(count)]
        return self.plain(kind, count, what)

    def plain(self, kind: int, count: int, what: str) -> list[Any]:
        """Numbers, or truths, one after the other."""
        if kind not in SCALARS:
            raise InputError(f"{self.path}: {what} is of type {kind}, which is none that GGUF has here")
        form = np.dtype(SCALARS[kind]).newbyteorder("<")
        data = self.bytes(count * form.itemsize, what)
        if kind == BOOL and data.strip(b"\0\1"):
            raise InputError(f"{self.path}: {what} is neither true nor false: the file is damaged")
        return np.frombuffer(data, form).tolist()

    def claim(self, name: str) -> tuple[str, tuple[int, ...], int, int]:
        """The type, shape, offset and size of one tensor."""
        axes = self.scalar("I")
        if not 1 <= axes <= MAX_AXES:
            raise InputError(f"{self.path}: {name!r} has {axes} axes; tensors have 1 to {MAX_AXES}")
        sizes = struct.unpack(f"<{axes}Q", self.bytes(8 * axes, "a shape"))
        kind, offset = self.scalar("I"), self.scalar("Q")
        shape = sizes[::-1]
        if kind not in NAMES:
            raise InputError(f"{self.path}: {name!r} is of ggml's type {kind}; those read are {', '.join(TYPES)}")
        what = NAMES[kind]
        _, numbers, size = TYPES[what]
        if not all(shape) or shape[-1] % numbers:
            raise InputError(f"{self.path}: {name!r} has the shape {shape}, which {what} cannot have")
        return what, shape, offset, math.prod(shape) // numbers * size

    def placed(self, claims: Mapping[str, tuple[str, tuple[int, ...], int, int]], step: Any) -> dict[str, Block]:
        """Where the tensors are, one after the other from the end of the header on, in steps of the alignment."""
        if type(step) is not int or not 0 < step <= MAX_ALIGNMENT or step & (step - 1):
            raise InputError(f"{self.path}: general.alignment should be a power of two; came {step!r:.40}")
        start = math.ceil(self.at / step) * step
        blocks, at = {}, 0
        for name, (what, shape, offset, size) in sorted(claims.items(), key=lambda item: item[1][2:]):
            if offset != at:
                odd = "overlaps the one before" if offset < at else f"leaves {offset - at} bytes unused before it"
                raise InputError(f"{self.path}: {name!r} {odd}: the file is damaged or made up")
            if start + offset + size > self.size:
                raise InputError(
                    f"{self.path}: cut short: {name!r} ends at {start + offset + size}, the file at {self.size}"
                )
            blocks[name] = Block(what, shape, start + offset, size)
            at = math.ceil((offset + size) / step) * step
        if self.size > start + at:
            raise InputError(f"{self.path}: too long: {start + at} bytes expected, {self.size} are there")
        return {name: blocks[name] for name in claims}


def _numbers(pages: mmap.mmap, block: Block) -> Tensor:
    """A tensor in float32: on the file's own pages where it is written so, else made part by part."""
    if block.type in FLOATS:
        dtype = FLOATS[block.type]
        if block.start % dtype.itemsize == 0:
            flat = torch.frombuffer(pages, dtype=dtype, count=math.prod(block.shape), offset=block.start)
        else:
            flat = torch.frombuffer(bytearray(pages[block.start : block.start + block.size]), dtype=dtype)
        return flat.float().view(block.shape)
    package = need("gguf", "gguf")
    kind = package.GGMLQuantizationType[block.type]
    _, numbers, size = TYPES[block.type]
    made, many = torch.empty(math.prod(block.shape)), CHUNK // numbers
    blocks = np.frombuffer(pages, np.uint8, block.size, block.start).reshape(-1, size)
    for at in range(0, len(blocks), many):
        part = package.dequantize(blocks[at : at + many], kind)
        made[at * numbers :][: part.size] = torch.from_numpy(part.reshape(-1))
    return made.view(block.shape)
