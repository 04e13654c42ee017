"""A snapshot: everything an exact resume needs, in a folder of its own that counts only once it is whole.

`step-00000120/` holds tensors.safetensors, facts.json and sha256s (in the format of `sha256sum -c`). It is written as
`step-00000120.tmp`, fsynced file by file, renamed, and its parent fsynced; only then may it be announced, and only
then do older ones go. Nothing is ever overwritten: a second snapshot of a step is `step-00000120.1`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyformer.core.errors import InputError
from anyformer.runs.files import Files, explained, remove_tree, write_durably
from anyformer.runs.pack import pack_state, unpack_state
from anyformer.runs.weights import read_tensors, tensor_chunks

if TYPE_CHECKING:
    from torch import Tensor

TENSORS, FACTS, HASHES = "tensors.safetensors", "facts.json", "sha256s"
NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")


@dataclass(frozen=True)
class Snapshot:
    """The state after `step` steps: named tensors, and facts made of None, bool, int, float, str, list, tuple, dict."""

    step: int
    tensors: "Mapping[str, Tensor]"
    facts: Mapping[str, object]


def found(folder: Path) -> list[Path]:
    """The snapshots in a folder that have their final name, newest first."""
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=order, reverse=True)


def order(path: Path) -> tuple[int, int]:
    """(step, how many were saved before at this step), from the name of a snapshot."""
    match = NAME.fullmatch(path.name)
    assert match, path
    return int(match[1]), int(match[2] or 0)


def write(files: Files, folder: Path, snapshot: Snapshot) -> Path:
    """Writes a snapshot into a folder of snapshots and returns its path; when it returns, the snapshot is durable."""
    strays, facts = pack_state(dict(snapshot.facts))
    if strays:
        raise ValueError(f"facts hold a tensor ({', '.join(strays)}): it belongs into tensors, see pack_state")
    text = json.dumps({"step": snapshot.step, "facts": facts}).encode()
    same = [times for step, times in map(order, found(folder)) if step == snapshot.step]
    name = f"step-{snapshot.step:08}" + (f".{max(same) + 1}" if same else "")
    path, temporary = folder / name, folder / f"{name}.tmp"
    with explained(path):
        try:
            if temporary.exists():
                remove_tree(files, temporary)
            files.mkdir(temporary)
            hashes = {
                TENSORS: write_durably(files, temporary / TENSORS, tensor_chunks(snapshot.tensors, {})),
                FACTS: write_durably(files, temporary / FACTS, text),
            }
            lines = "".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items())
            write_durably(files, temporary / HASHES, lines.encode())
            files.fsync(temporary)
            files.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                remove_tree(files, temporary)
            raise
        files.fsync(folder)
    return path


def read(path: Path) -> Snapshot:
    """The snapshot in a folder, after its hashes have been checked; InputError names the file that is damaged."""
    hashes: dict[str, str] = {}
    for line in _bytes(path / HASHES).decode(errors="replace").splitlines():
        sha256, _, name = line.partition("  ")
        hashes[name] = sha256
    tensors, sha256 = read_tensors(path / TENSORS)
    text = _bytes(path / FACTS)
    for name, real in ((TENSORS, sha256), (FACTS, hashlib.sha256(text).hexdigest())):
        if hashes.get(name) != real:
            raise InputError(f"{path / name} is damaged: its sha256 is not the one in {HASHES}")
    table = json.loads(text)
    facts = unpack_state({}, table["facts"])
    assert isinstance(facts, dict)
    return Snapshot(table["step"], tensors, facts)


def latest(folder: Path, notes: list[str]) -> tuple[Snapshot | None, list[Path]]:
    """The newest snapshot that is whole, and the damaged ones that had to be passed over, each of which is noted."""
    while True:
        paths = found(folder)
        damage: dict[Path, str] = {}
        for path in paths:
            try:
                snapshot = read(path)
            except InputError as error:
                damage[path] = str(error)
                continue
            notes += [f"{one}; using the snapshot of step {snapshot.step}" for one in damage.values()]
            return snapshot, [*damage]
        if found(folder) == paths:  # else a running process has replaced them while we were looking
            notes += [f"{one}; there is no older snapshot" for one in damage.values()]
            return None, [*damage]


def prune(files: Files, folder: Path, newest: Path, keep: int, damaged: list[Path], every: int = 1) -> None:
    """Removes all but `newest` and the `keep` - 1 whole ones before it, of steps that are multiples of `every`.

    Those of the same step have been replaced by it; later ones belong to a future that was given up; one of another
    step was made because somebody asked the run to stop, and has served.
    """
    step = order(newest)[0]
    whole = [path for path in found(folder) if path not in damaged]
    earlier = [path for path in whole if order(path)[0] < step and order(path)[0] % every == 0]
    kept = {newest, *earlier[: keep - 1]}
    for path in [path for path in found(folder) if path not in kept]:
        # Under its new name it no longer counts, so half a snapshot is never taken for a damaged one.
        dead = path.with_name(f"{path.name}.tmp")
        files.rename(path, dead)
        files.fsync(folder)
        remove_tree(files, dead)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
