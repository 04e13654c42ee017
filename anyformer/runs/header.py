"""The header of a safetensors file, with every claim checked before anything is allocated.

The format (huggingface/safetensors): eight bytes of header length, a JSON header {name: {dtype, shape, data_offsets}},
then the bytes. The library accepts duplicate names, names like `../../x` and 100,000 empty tensors; here they are
refused, and the tensors must cover the file exactly.
"""

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from anyformer.core.errors import InputError

MAX_TENSORS = 65_536
MAX_NAME = 512
MAX_RANK = 64  # torch's own limit
MAX_HEADER = 32 * 2**20  # room for MAX_TENSORS names of MAX_NAME letters
MAX_BYTES = 2**63 - 1

# code in the file: (name in torch, bytes). 8-bit floats and wide unsigned integers, with which torch hardly computes,
# are left out.
DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "C64": ("complex64", 8),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
CODES = {f"torch.{name}": code for code, (name, _) in DTYPES.items()}
STORED = {**DTYPES, "F8_E4M3": ("float8_e4m3fn", 1)}  # what others publish weights in, beside these

DISGUISES = {
    b"PK\x03\x04": "a zip of pickles, as torch.save writes, which is not opened: convert it with `anyformer convert`",
    b"\x80": "a pickle, which is not opened: convert it with `anyformer convert`",
    b"version https://git-lfs": "a git-lfs pointer, not the weights: fetch them with `git lfs pull`",
    b"GGUF": "a GGUF file: convert it with `anyformer convert`",
    b"<": "a web page: the download did not give the file",
}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: bytes start to end, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The checked header of a file; its entries are in the order of their bytes, without gap or overlap."""

    raw: bytes
    entries: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The names, dtypes, shapes and metadata of a file, without reading any tensor."""
    with opened(path) as file:
        return check_header(file, path)


def opened(path: Path, wanted: str = "safetensors weights") -> BufferedReader:
    if not os.path.isfile(path):  # a pipe or a device would hang or never end
        what = "not a file" if os.path.exists(path) else "no such file"
        raise InputError(f"{path}: {what}; expected {wanted}")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def check_header(file: BufferedReader, path: Path, dtypes: Mapping[str, tuple[str, int]] = DTYPES) -> Header:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(64)
    if size < 8:
        raise InputError(f"{path}: {size} bytes long, but a safetensors file has at least 8: it is empty or cut short")
    (length,) = struct.unpack("<Q", start[:8])
    if length > MAX_HEADER or 8 + length > size:
        for magic, what in DISGUISES.items():
            if start.startswith(magic):
                raise InputError(f"{path}: this is {what}")
    if length > MAX_HEADER:
        raise InputError(f"{path}: claims a header of {length} bytes; at most {MAX_HEADER} are allowed")
    if 8 + length > size:
        raise InputError(f"{path}: cut short: at least {8 + length} bytes expected, {size} are there")
    file.seek(0)
    raw = file.read(8 + length)
    table = _table(raw[8:], path)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise InputError(f"{path}: its __metadata__ is not a table of texts")
    if len(table) > MAX_TENSORS:
        raise InputError(f"{path}: {len(table)} tensors; at most {MAX_TENSORS} are allowed")
    entries = {name: _entry(name, value, path, dtypes) for name, value in table.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    at = 0
    for name, entry in entries.items():
        if entry.start != at:
            what = (
                "overlaps the one before" if entry.start < at else f"leaves {entry.start - at} bytes unused before it"
            )
            raise InputError(f"{path}: {name!r} {what}: the file is damaged or made up")
        at = entry.end
    if 8 + length + at != size:
        what = "cut short" if 8 + length + at > size else "too long"
        raise InputError(f"{path}: {what}: {8 + length + at} bytes expected, {size} are there")
    return Header(raw, entries, metadata)


def _table(text: bytes, path: Path) -> dict[str, object]:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise InputError(f"{path}: {twice[:80]!r} stands twice in its header")
        return table

    try:
        table = json.loads(text.decode(), object_pairs_hook=once)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its header is not JSON: it is damaged, or not a safetensors file") from error
    if not isinstance(table, dict):
        raise InputError(f"{path}: its header is not a table of tensors")
    return table


def _entry(name: str, value: object, path: Path, dtypes: Mapping[str, tuple[str, int]]) -> Entry:
    if reason := bad_name(name):
        raise InputError(f"{path}: holds a tensor called {name[:80]!r}: {reason}")
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end], **rest} if not rest:
            pass
        case _:
            raise InputError(f"{path}: {name!r} must have exactly dtype, shape and two data_offsets")
    if dtype not in dtypes:
        raise InputError(f"{path}: {name!r} has dtype {dtype[:20]!r}; the dtypes read are {', '.join(dtypes)}")
    # type() and not isinstance: true is no size
    if len(shape) > MAX_RANK or any(type(n) is not int or not 0 <= n <= MAX_BYTES for n in [*shape, start, end]):
        raise InputError(f"{path}: the shape or the data_offsets of {name!r} are not possible sizes")
    itemsize = dtypes[dtype][1]
    if math.prod(max(n, 1) for n in shape) * itemsize > MAX_BYTES:
        raise InputError(f"{path}: the shape of {name!r}, {shape}, is larger than any memory")
    if math.prod(shape) * itemsize != end - start:
        raise InputError(f"{path}: {name!r} is {dtype} of shape {shape}, but its data_offsets hold {end - start} bytes")
    return Entry(dtype, tuple(shape), start, end)


def bad_name(name: str) -> str | None:
    if not 0 < len(name) <= MAX_NAME:
        return f"names have 1 to {MAX_NAME} letters, not {len(name)}"
    if name == "__metadata__":
        return "the format keeps that name for itself"
    if not name.isprintable() or "\\" in name or name.startswith("/") or ".." in name.split("/"):
        return "names have no control characters and are not paths out of a folder"
    return None
