"""One process at a time writes to a run: `.lock` says who, and the system's own lock (flock) whether it still lives.

The system drops its lock when a process ends, however it ends, so a lock that can be had is free; the text is for
people, and for disks shared between hosts, where flock may not reach.
"""

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anyformer.core.errors import ResourceError
from anyformer.runs.files import explained

NAME = ".lock"


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds until `release`, or until it ends."""

    path: Path
    handle: int

    @staticmethod
    def take(folder: Path, notes: list[str]) -> "Lock":
        """Takes the lock of a folder; a note tells when it was left behind by a process that is gone."""
        path = folder / NAME
        while True:
            with explained(path):
                if lock := _attempt(path, notes):
                    return lock

    def release(self) -> None:
        """Lets the next process in."""
        # Removed while it is still held: nobody can have locked this file and find it gone (see _same_file).
        with suppress(OSError):
            self.path.unlink()
        os.close(self.handle)


def _attempt(path: Path, notes: list[str]) -> Lock | None:
    """None: the lock's file was removed by its owner between our open and our flock, so look again."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _same_file(handle, path):
            text = _judged(_read(handle), path.parent, notes)
            os.ftruncate(handle, 0)
            os.pwrite(handle, text.encode(), 0)
            return Lock(path, handle)
    except BlockingIOError as error:
        owner = _name(_read(handle))
        os.close(handle)
        raise ResourceError(
            f"{path.parent} is in use by {owner}: wait for it, stop it, or use another --out"
        ) from error
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _judged(owner: dict[str, object], folder: Path, notes: list[str]) -> str:
    """What to write into a lock that the system lets us have, although `owner` may still be written in it."""
    here = socket.gethostname()
    if owner and owner.get("host") != here:
        raise ResourceError(
            f"{folder} was in use by {_name(owner)}, and from here ({here}) it cannot be seen whether that goes on: "
            f"if it has ended, delete {folder / NAME}"
        )
    if owner:
        notes.append(f"{folder} had been left locked by {_name(owner)}, which is gone: going on")
    return json.dumps({"pid": os.getpid(), "host": here, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def _read(handle: int) -> dict[str, object]:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except ValueError:  # still empty, or its writer was killed while writing
        return {}
    return owner if isinstance(owner, dict) else {}


def _name(owner: dict[str, object]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} (since {owner.get('time')})"


def _same_file(handle: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
