"""A disk that fails, kills its process or loses its power at the k-th operation: the twin of `Disk`.

A power cut keeps any subset of what was not fsynced: of a file, its old bytes, a part of the new ones, or zeros in
their place; of a folder, any of the names that came, went or changed. POSIX promises no more.
"""

import errno
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from anyformer.runs.files import DISK, Chunk

Fault = Callable[[int, str], BaseException | None]


class Killed(BaseException):
    """SIGKILL: no handler can do anything to the disk any more."""


def never(number: int, operation: str) -> None:
    return None


def kill_at(k: int) -> Fault:
    return lambda number, operation: Killed() if number == k else None


def fail_at(k: int, code: int) -> Fault:
    return lambda number, operation: OSError(code, os.strerror(code)) if number == k else None


def full_from(k: int) -> Fault:
    """From the k-th operation on nothing more fits; what needs no space still works."""
    grows = ("write", "append", "mkdir")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return lambda number, operation: full if number >= k and operation in grows else None


@dataclass
class File:
    now: bytes
    safe: bytes = b""


@dataclass
class Folder:
    safe: "dict[str, File | Folder]" = field(default_factory=dict)
    pending: "list[tuple[str | None, str | None, File | Folder]]" = field(default_factory=list)  # (gone, come, node)

    def names(self, kept: Callable[[], bool] = lambda: True) -> "dict[str, File | Folder]":
        names = dict(self.safe)
        for gone, come, node in self.pending:
            if kept():
                if gone is not None:
                    names.pop(gone, None)
                if come is not None:
                    names[come] = node
        return names


class Unsynced:
    """The real disk without waiting for it, for tests that cut no power."""

    mkdir, write, append, rename, remove = DISK.mkdir, DISK.write, DISK.append, DISK.rename, DISK.remove

    def fsync(self, path: Path) -> None:
        path.stat()


class FaultyDisk:
    """Does everything to the real disk under `root`, and keeps a shadow of what would survive a power cut."""

    def __init__(self, root: Path, fault: Fault = never) -> None:
        self.root = root
        self.fault = fault
        self.operations: list[str] = []
        self.dead = False
        self.shadow = Folder()

    def mkdir(self, path: Path) -> None:
        self._step("mkdir")
        DISK.mkdir(path)
        self._folder(path.parent).pending.append((None, path.name, Folder()))

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        data = b"".join(bytes(chunk) for chunk in chunks)
        file = File(b"")

        def put(data: bytes) -> None:
            DISK.write(path, [data])
            file.now = data
            self._folder(path.parent).pending.append((None, path.name, file))

        self._step("write", lambda: put(data[: len(data) // 2]))
        put(data)

    def append(self, path: Path, data: bytes) -> None:
        def put(data: bytes) -> None:
            DISK.append(path, data)
            file = self._node(path)
            assert isinstance(file, File)
            file.now += data

        self._step("append", lambda: put(data[: len(data) // 2]))
        put(data)

    def fsync(self, path: Path) -> None:
        self._step("fsync")
        node = self._node(path)
        if isinstance(node, File):
            node.safe = node.now
        else:
            node.safe, node.pending = node.names(), []

    def rename(self, source: Path, target: Path) -> None:
        assert source.parent == target.parent
        self._step("rename")
        DISK.rename(source, target)
        self._folder(source.parent).pending.append((source.name, target.name, self._node(source)))

    def remove(self, path: Path) -> None:
        self._step("remove")
        DISK.remove(path)
        self._folder(path.parent).pending.append((path.name, None, File(b"")))

    def cut_power(self, target: Path, seed: int) -> None:
        """Writes into the new folder `target` what the disk might hold after a power cut now."""
        draw = random.Random(seed)

        def survivor(file: File) -> bytes:
            new = file.now[len(file.safe) :]  # files only ever grow
            return file.safe + draw.choice([new, new[: draw.randint(0, len(new))], bytes(len(new))])

        def put(folder: Folder, path: Path) -> None:
            path.mkdir()
            for name, node in folder.names(lambda: draw.random() < 0.5).items():
                if isinstance(node, Folder):
                    put(node, path / name)
                else:
                    (path / name).write_bytes(survivor(node))

        put(self.shadow, target)

    def _step(self, operation: str, half: Callable[[], None] = lambda: None) -> None:
        if self.dead:
            raise Killed
        error = self.fault(len(self.operations), operation)
        self.operations.append(operation)
        if error is not None:
            half()
            self.dead = isinstance(error, Killed)
            raise error

    def _node(self, path: Path) -> File | Folder:
        node: File | Folder = self.shadow
        for name in path.relative_to(self.root).parts:
            assert isinstance(node, Folder)
            node = node.names()[name]
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._node(path)
        assert isinstance(node, Folder)
        return node
