"""Files that are written whole or not at all: a temporary name, fsync, rename, fsync of the folder.

Everything in a run folder is written through the six operations of `Files`, so that the tests can fail, kill or
un-sync any one of them. POSIX promises: a rename is seen entirely or not at all; what was fsynced outlives a power cut.
"""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from anyformer.core.errors import ResourceError

Chunk = bytes | memoryview

ADVICE = {
    errno.ENOSPC: "free some space, or write to another disk with --out",
    errno.EDQUOT: "your quota is used up: free some space, or write to another disk with --out",
    errno.EROFS: "this disk can only be read: write somewhere else with --out",
    errno.EACCES: "you may not write there: change the permissions, or write somewhere else with --out",
    errno.EPERM: "you may not write there: change the permissions, or write somewhere else with --out",
    errno.ENAMETOOLONG: "choose a shorter name with --out",
    errno.ENOENT: "the folder has gone: was it moved or deleted meanwhile?",
}


class Files(Protocol):
    """What can be done to a disk, one operation at a time. Each may raise OSError."""

    def mkdir(self, path: Path) -> None:
        """Makes one folder; its parent exists, it does not."""
        ...

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        """Writes a new file; one that exists is refused."""
        ...

    def append(self, path: Path, data: bytes) -> None:
        """Adds bytes to a file, which is made if need be."""
        ...

    def fsync(self, path: Path) -> None:
        """Returns when a file's bytes, or a folder's list of names, are on the disk."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file or a folder another name within its folder; a file of that name is replaced."""
        ...

    def remove(self, path: Path) -> None:
        """Removes a file, a link or an empty folder."""
        ...


class Disk:
    """The real disk."""

    def mkdir(self, path: Path) -> None:
        path.mkdir()

    def write(self, path: Path, chunks: Iterable[Chunk]) -> None:
        with path.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)

    def append(self, path: Path, data: bytes) -> None:
        # One unbuffered write: the line is with the system, and outlives this process, when the call returns.
        with path.open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fsync(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            # Some network file systems have no fsync for folders and say EINVAL; a file must never be excused.
            if error.errno != errno.EINVAL or not path.is_dir():
                raise
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


DISK = Disk()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the system's refusal to write `path` into one line that says what to do."""
    try:
        yield
    except ResourceError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        advice = ADVICE.get(error.errno or 0, "see whether the disk is well")
        raise ResourceError(f"cannot write {path}: {reason}; {advice}. What was saved before is intact") from error


def write_durably(files: Files, path: Path, data: bytes | Iterable[Chunk]) -> str:
    """Writes a new file, waits until it is on the disk, and returns its sha256."""
    digest = hashlib.sha256()

    def passing() -> Iterator[Chunk]:
        for chunk in [data] if isinstance(data, bytes) else data:
            digest.update(chunk)
            yield chunk

    files.write(path, passing())
    files.fsync(path)
    return digest.hexdigest()


@contextmanager
def staged(files: Files, path: Path, data: bytes | Iterable[Chunk]) -> Iterator[str]:
    """Writes `path` in two moves: the bytes are on the disk when the body runs, and get their name after it.

    The body is given the sha256 of the new bytes; if it raises, or anything else fails, the old file stays.
    """
    with renamed(files, path) as temporary:
        yield write_durably(files, temporary, data)


@contextmanager
def renamed(files: Files, path: Path) -> Iterator[Path]:
    """The body durably writes a file of another name, which becomes `path`; if the body raises, it is removed."""
    # The name says nothing of the target: a target's name may already be as long as the disk allows.
    temporary = path.with_name(f".anyformer-{uuid.uuid4().hex[:12]}.tmp")
    with explained(path):
        try:
            yield temporary
            files.rename(temporary, path)
        except BaseException:  # also Ctrl-C: no partial file stays behind
            with suppress(OSError):
                files.remove(temporary)
            raise
        files.fsync(path.parent)


def atomic_write(files: Files, path: Path, data: bytes | Iterable[Chunk]) -> str:
    """Writes or replaces `path` as a whole, durably, and returns its sha256; on failure the old file stays."""
    with staged(files, path, data) as sha256:
        pass
    return sha256


def is_leftover(path: Path) -> bool:
    """Whether `path` is the unfinished work of a process that was killed."""
    return path.name.startswith(".anyformer-") and path.name.endswith(".tmp")


def make_folder(files: Files, path: Path) -> None:
    """Makes a folder and the parents it lacks, durably; one that exists is left as it is."""
    with explained(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            with suppress(FileExistsError):  # another process may be making the same parents
                files.mkdir(folder)
            files.fsync(folder.parent)


def remove_tree(files: Files, path: Path) -> None:
    """Removes a folder and what is in it; links are removed, not followed."""
    if path.is_dir() and not path.is_symlink():
        for inside in sorted(path.iterdir()):
            remove_tree(files, inside)
    files.remove(path)
