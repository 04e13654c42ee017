"""`pytorch_model.bin`: pickles of weights, made into safetensors by a process of its own.

A pickle is a program. torch runs only what builds tensors (`weights_only`), and here it does so in a child that may
take so much memory and time and no more; what it writes is kept when all of it went well.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyformer.checkpoints.files import INDEX, SINGLE, weight_map
from anyformer.core.errors import InputError, ResourceError
from anyformer.runs.files import DISK, atomic_write, explained, make_folder, remove_tree
from anyformer.runs.weights import save_tensors

BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SPARE = 2**29  # bytes that a child may take beside what its file has
SECONDS, SPEED = 120, 2**23  # a child may take: so long, and a second more for so many bytes of its file
COPIES = 4  # tensors may have so many times the bytes of their file: some files keep one that two names share


def to_safetensors(folder: Path, out: Path) -> None:
    """Writes the weights of a folder's pickles into `out`, as one file or as the shards that the index lists."""
    listed = weight_map(folder / BIN_INDEX) if (folder / BIN_INDEX).is_file() else None
    shards = _shards(folder, listed)
    with _scratch(out) as scratch:
        found = _converted({source: scratch / name for source, name in shards.items()})
        where = {tensor: name for name, tensors in zip(shards.values(), found, strict=True) for tensor in tensors}
        if len(where) < sum(map(len, found)):
            raise InputError(f"{folder}: a tensor stands in more than one of {', '.join(path.name for path in shards)}")
        if listed is not None and (odd := sorted(listed.keys() ^ where.keys())):
            raise InputError(f"{folder / BIN_INDEX}: {odd[0]!r} stands in the index or in a file, and not in both")
        if len(shards) > 1:
            size = sum((scratch / name).stat().st_size for name in shards.values())
            index = {"metadata": {"total_size": size}, "weight_map": where}
            atomic_write(DISK, scratch / INDEX, json.dumps(index).encode())
        with explained(out):
            for made in sorted(scratch.iterdir()):  # the index last: without it there is no sharded checkpoint
                DISK.rename(made, out / made.name)
            DISK.fsync(out)


def _shards(folder: Path, listed: Mapping[str, str] | None) -> dict[Path, str]:
    """The pickles, and the file that each becomes. listed: the file of each tensor; None: there is no index."""
    if listed is None:
        if not (folder / BIN).is_file():
            raise InputError(f"{folder}: has no {BIN} and no {BIN_INDEX}")
        return {folder / BIN: SINGLE}
    names = sorted(set(listed.values()))
    if len(names) == 1:
        return {folder / names[0]: SINGLE}
    return {folder / name: f"model-{number:05}-of-{len(names):05}.safetensors" for number, name in enumerate(names, 1)}


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder for what is not yet known to be good; it and a folder made for it do not stay."""
    new = not out.exists()
    make_folder(DISK, out)
    scratch = out / f".anyformer-{uuid.uuid4().hex[:12]}.tmp"
    with explained(out):
        DISK.mkdir(scratch)
    try:
        yield scratch
    finally:
        remove_tree(DISK, scratch)
        if new and not any(out.iterdir()):
            DISK.remove(out)


def _converted(files: Mapping[Path, Path]) -> list[list[str]]:
    """The names of the tensors that a child found in each file, and wrote into another."""
    sizes = [source.stat().st_size for source in files]
    seconds = SECONDS + sum(sizes) // SPEED
    command = "from anyformer.checkpoints.pickles import child; child()"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", command, str(max(sizes))],
            input=json.dumps([[str(source), str(made)] for source, made in files.items()]),
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{next(iter(files)).parent}: its pickles took more than {seconds} seconds") from None
    lines = done.stdout.splitlines()
    match json.loads(lines[-1]) if lines and done.returncode == 0 else None:
        case {"names": list(names)}:
            return names
        case {"refused": str(reason)}:
            raise InputError(reason)
        case {"no_room": str(reason)}:
            raise ResourceError(reason)
        case _:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(
                f"{next(iter(files))}: the process that read it ended with {done.returncode}: {last[:200]}"
            )


def child() -> None:
    """What the child does: reads pickles and writes safetensors; its last line says what came of it."""
    files = [(Path(source), Path(made)) for source, made in json.load(sys.stdin)]
    _limit(int(sys.argv[1]))
    answer: dict[str, Any] = {"names": []}
    for source, made in files:
        try:
            tensors = unpickled(source)
            save_tensors(DISK, made, tensors, {"format": "pt"})
            answer["names"].append(list(tensors))
        except ResourceError as error:
            answer = {"no_room": str(error)}
            break
        except Exception as error:
            answer = {"refused": f"{source}: not opened: {_reason(error)}"}
            break
    print(json.dumps(answer), flush=True)
    os._exit(0)  # what a crafted pickle has built may take long to be taken apart


def _limit(size: int) -> None:
    """No more memory than now, what the largest file has a few times over, and some to spare; on Linux."""
    try:
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = now + 3 * size + SPARE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError, ValueError):
        return


def unpickled(source: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, on the pages of its file; only what builds tensors is run."""
    try:
        loaded: object = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        loaded = torch.load(source, map_location="cpu", weights_only=True)  # a file from before torch 1.6
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}, not tensors by name")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{str(name)[:80]!r} is a {type(tensor).__name__}, not a tensor with a name")
    if sum(tensor.nbytes for tensor in loaded.values()) > COPIES * source.stat().st_size:
        raise ValueError("its tensors claim far more bytes than it has")
    return loaded


def _reason(error: Exception) -> str:
    """In one line, and without torch's advice to go on all the same."""
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it asks to run {found[1]}, which no weights need: it may be an attack"
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return "it takes far more memory than its size would allow"
    if isinstance(error, ValueError):
        return text.splitlines()[0][:200]
    return "it is no file of weights as torch writes it: cut short, damaged, or something else"
