"""What was worked out once from data is kept: a folder per key, made whole or not at all, checked whenever it is used.

A folder is built under a temporary name, sealed (a manifest with the size and sha256 of every file; everything on the
disk) and renamed. So a process that is killed leaves no half of it, and two that build the same one do no harm: the
second finds the first one's and takes it. What was cut short or flipped since is built anew.
"""

import atexit
import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from anyformer.core.errors import ResourceError

MANIFEST = "manifest.json"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ABANDONED = 24 * 3600  # seconds after which what a killed process left is removed


def key_of(*parts: object) -> str:
    """A name for whatever follows from these (texts, numbers, JSON-like trees)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of this key, whole; `build` writes its files where there is none.

    It lies below $XDG_CACHE_HOME/anyformer (default ~/.cache/anyformer), or, where nothing can be written, in a
    temporary folder that goes when the process ends.
    """
    root = _cache_folder()
    if root is not None:
        try:
            return _kept(root / kind, key, build)
        except OSError as error:
            if error.errno in FULL:
                raise ResourceError(
                    error.errno, f"{root}: {error.strerror}: free some, or set XDG_CACHE_HOME to a folder with room"
                ) from error
    try:
        return _kept(_temporary_folder() / kind, key, build)
    except OSError as error:
        raise ResourceError(
            error.errno, f"tokens can be kept nowhere: {error.strerror}: set XDG_CACHE_HOME or TMPDIR to a folder"
        ) from error


def _cache_folder() -> Path | None:
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the XDG rule: a relative one does not count
        return Path(named, "anyformer")
    try:
        return Path.home() / ".cache" / "anyformer"
    except RuntimeError:  # this user has no home
        return None


@functools.cache
def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="anyformer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _kept(parent: Path, key: str, build: Callable[[Path], None]) -> Path:
    final = parent / key
    if intact(final):
        return final
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    partial = Path(tempfile.mkdtemp(prefix=f"{key[:16]}-", suffix=".partial", dir=parent))
    try:
        build(partial)
        _seal(partial)
        _place(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def intact(folder: Path) -> bool:
    """Whether a sealed folder holds what it held when it was sealed."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return bool(manifest) and all(
            (folder / name).stat().st_size == file["size"] and _sha256(folder / name) == file["sha256"]
            for name, file in manifest.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _seal(folder: Path) -> None:
    files = sorted(file for file in folder.iterdir())
    manifest = {file.name: {"size": file.stat().st_size, "sha256": _sha256(file)} for file in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
    for path in (*files, folder / MANIFEST, folder):
        _sync(path)


def _place(partial: Path, final: Path) -> None:
    aside = partial.with_suffix(".damaged")
    while True:
        try:
            os.rename(partial, final)
            return _sync(final.parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if intact(final):
            return  # another process was faster
        try:
            os.rename(final, aside)
        except FileNotFoundError:
            continue  # another process has moved the damaged one away
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what processes that were killed left behind."""
    for left in parent.glob("*.partial"):
        try:
            old = time.time() - left.stat().st_mtime > ABANDONED
        except OSError:
            continue  # its process has just finished it
        if old:
            shutil.rmtree(left, ignore_errors=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
