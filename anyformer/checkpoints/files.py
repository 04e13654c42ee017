"""Safetensors files of other people: one, or many with an index; mapped into memory, every claim checked first.

Nothing is read until a tensor is asked for, and a tensor's bytes are the file's own pages, copied where they are
written to: a model that is only read costs no more memory than its file.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyformer.core.errors import InputError
from anyformer.core.explain import came
from anyformer.runs.header import STORED, Entry, check_header, opened

if TYPE_CHECKING:
    from torch import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST_JSON = 2**26  # bytes of a config or an index


@dataclass(frozen=True)
class Shard:
    """One file, mapped. start: where its tensors begin."""

    path: Path
    start: int
    entries: Mapping[str, Entry]

    @staticmethod
    def open(path: Path) -> Shard:
        with opened(path) as file:
            header = check_header(file, path, STORED)
        return Shard(path, len(header.raw), header.entries)

    @cached_property
    def pages(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the file's own pages."""
        import torch

        entry = self.entries[name]
        dtype = getattr(torch, STORED[entry.dtype][0])
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=dtype)
        count = (entry.end - entry.start) // dtype.itemsize
        at = self.start + entry.start
        flat = torch.frombuffer(self.pages, dtype=dtype, count=count, offset=at)
        if at % dtype.itemsize:  # another program's layout: most kernels want whole steps
            flat = flat.clone()
            self.forget(self.address + at, flat.nbytes)
        return flat.view(entry.shape)

    @cached_property
    def address(self) -> int:
        """Of the first page."""
        import torch

        return torch.frombuffer(self.pages, dtype=torch.uint8).data_ptr()

    def forget(self, at: int, size: int) -> None:
        """Hold pages no longer, those that lie whole between two addresses."""
        page, first = mmap.PAGESIZE, at - self.address
        first, last = -(-first // page) * page, (first + size) // page * page
        if 0 <= first < last <= len(self.pages) and sys.platform == "linux":
            self.pages.madvise(mmap.MADV_DONTNEED, first, last - first)


class Weights(Mapping[str, "Tensor"]):
    """The tensors of a folder by their names, each mapped when it is asked for."""

    def __init__(self, where: Mapping[str, Shard]) -> None:
        self.where = where
        self.shards = list({id(shard): shard for shard in where.values()}.values())

    @staticmethod
    def open(folder: Path) -> Weights:
        """Of a folder's `model.safetensors`, or of the files that its index lists."""
        if (folder / INDEX).is_file():
            return Weights(_sharded(folder))
        if not (folder / SINGLE).is_file() and sorted(folder.glob("pytorch_model*.bin*")):
            raise InputError(
                f"{folder}: its weights are pickles, which are not opened; `anyformer convert {folder} OUT` makes "
                "safetensors of them, in a process of its own"
            )
        shard = Shard.open(folder / SINGLE)
        return Weights(dict.fromkeys(shard.entries, shard))

    def __getitem__(self, name: str) -> Tensor:
        return self.where[name].tensor(name)

    def forget(self, tensor: Tensor) -> None:
        """Hold the pages of one of these tensors no longer, or of a part of it; nobody may have written to them.

        Whoever reads it again takes it from the file again, which is quick while the system has that in its memory.
        """
        storage = tensor.untyped_storage()
        for shard in self.shards:
            shard.forget(storage.data_ptr(), storage.nbytes())

    def __iter__(self) -> Iterator[str]:
        return iter(self.where)

    def __len__(self) -> int:
        return len(self.where)

    def dtypes(self) -> set[str]:
        """The codes of the numbers that are no integers."""
        codes = {shard.entries[name].dtype for name, shard in self.where.items()}
        return {code for code in codes if "F" in code}


def _sharded(folder: Path) -> dict[str, Shard]:
    table = weight_map(folder / INDEX)
    shards = {name: Shard.open(folder / name) for name in sorted(set(table.values()))}
    for name, shard in shards.items():
        listed = {tensor for tensor, file in table.items() if file == name}
        if odd := sorted(listed ^ shard.entries.keys()):
            where = "in the index and not in the file" if odd[0] in listed else "in the file and not in the index"
            raise InputError(f"{folder / name}: {odd[0]!r} stands {where}: the shards do not belong together")
    return {tensor: shards[file] for tensor, file in table.items()}


def weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, as an index says it; every file is there, in the index's own folder."""
    table, folder = read_json(index).get("weight_map"), index.parent
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise InputError(f"{index}: should have a weight_map of tensor names to file names")
    for name in sorted(set(table.values())):
        if Path(name).name != name or not inside(folder, name):
            raise InputError(f"{index}: {name[:80]!r} is no file of this folder")
        if not (folder / name).is_file():
            raise InputError(f"{index}: {name} is listed and missing; fetch it")
    return table


def inside(folder: Path, name: str) -> bool:
    """Whether what a folder names is its own, and no way out of it: not `../x`, not `/x`, not a link to elsewhere.

    A snapshot in the hub's cache holds links alone. They may lead to the blobs of its own repository, and from there to
    those that the repositories of a cache share, which have a hash for a name; to nothing else.
    """
    if "\\" in name or "\0" in name:
        return False
    own, file = (Path(os.path.realpath(path)) for path in (folder, folder / name))
    if file.is_relative_to(own):
        return True
    repository = own.parent.parent
    if own.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return False
    shared = file.parent.parent == repository.parent / "blobs" and re.fullmatch("[0-9a-f]{64}", file.name)
    return file.parent == repository / "blobs" or bool(shared)


def read_json(path: Path) -> dict[str, Any]:
    """A table from a JSON file, of bounded size; a key that stands twice is refused."""
    tree = read_tree(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: should be a table; came {came(tree)}")
    return tree


def read_tree(path: Path) -> Any:
    """Whatever a JSON file holds, under the same limits."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            raise InputError(f"{path}: {next(name for name in names if names.count(name) > 1)[:80]!r} stands twice")
        return table

    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_JSON + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_JSON:
        raise InputError(f"{path}: longer than {LARGEST_JSON} bytes: this is no such file")
    try:
        tree = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON: {str(error)[:100]}") from None
    return tree
