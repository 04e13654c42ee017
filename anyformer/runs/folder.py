"""A run folder: what was asked for, what came out, and enough to go on exactly.

`create` makes one and `resume` takes one up again, both holding its lock; `open` only reads, from as many processes
as you like, also while it is being trained. Killed at any moment, the folder still opens.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anyformer.core.errors import ConfigError, InputError
from anyformer.runs import metrics, snapshot
from anyformer.runs.files import (
    DISK,
    Chunk,
    Files,
    atomic_write,
    explained,
    is_leftover,
    make_folder,
    remove_tree,
    staged,
)
from anyformer.runs.lock import NAME as LOCK
from anyformer.runs.lock import Lock
from anyformer.runs.manifest import NAME as MANIFEST
from anyformer.runs.manifest import Manifest
from anyformer.runs.snapshot import Snapshot
from anyformer.runs.weights import count_nonfinite, read_tensors, tensor_chunks

if TYPE_CHECKING:
    from torch import Tensor

SPEC, RECIPE, TOKENIZER, INFO, SNAPSHOTS = "spec.json", "recipe.yaml", "tokenizer.json", "run.json", "snapshots"
# A run that reads one language and writes another has these instead of the one.
SOURCE_TOKENIZER, TARGET_TOKENIZER = "tokenizer.source.json", "tokenizer.target.json"
CHAT_TEMPLATE = "chat_template.jinja"  # of a run that writes conversations


@dataclass
class RunFolder:
    """An open run. `notes` collects what the user should be told: recovered locks, damaged snapshots, odd weights."""

    path: Path
    files: Files
    manifest: Manifest
    lock: Lock | None
    notes: list[str] = field(default_factory=list)
    torn: bool = False  # the last line of the metrics could not be written whole
    damaged: list[Path] = field(default_factory=list)  # snapshots not to be counted among those that are kept

    @staticmethod
    def create(
        path: str | Path,
        *,
        spec: Mapping[str, object],
        recipe: str,
        tokenizer: str | None,
        source_tokenizer: str | None = None,
        chat_template: str | None = None,
        info: Mapping[str, object],
        files: Files = DISK,
    ) -> "RunFolder":
        """Makes a run in a folder that does not exist, is empty, or holds only a creation that was interrupted."""
        path = Path(path)
        _refuse_used(path)
        make_folder(files, path)
        notes: list[str] = []
        lock = Lock.take(path, notes)
        try:
            _refuse_used(path)  # again: another process may have been faster
            for old in path.iterdir():
                if old.name not in (LOCK, MANIFEST):
                    remove_tree(files, old)
            contents = {SPEC: _json(spec), RECIPE: recipe.encode(), INFO: _json(info)}
            names = {TOKENIZER if source_tokenizer is None else TARGET_TOKENIZER: tokenizer}
            for name, text in {**names, SOURCE_TOKENIZER: source_tokenizer, CHAT_TEMPLATE: chat_template}.items():
                if text is not None:
                    contents[name] = text.encode()
            run = RunFolder(path, files, Manifest(False, {}), lock, notes)
            # Written first, so that what an interrupted creation leaves can be told from somebody's own files.
            run.manifest.write(files, path)
            make_folder(files, path / SNAPSHOTS)
            atomic_write(files, path / metrics.NAME, b"")
            hashes = {name: (atomic_write(files, path / name, data),) for name, data in contents.items()}
            run.manifest = Manifest(True, hashes)
            run.manifest.write(files, path)
            return run
        except BaseException:
            lock.release()
            raise

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether there is a run at `path` to resume; false for nothing, an empty folder, an interrupted creation."""
        return os.path.exists(Path(path) / MANIFEST) and Manifest.read(Path(path)).complete

    @staticmethod
    def open(path: str | Path, *, files: Files = DISK) -> "RunFolder":
        """Opens a run to read it, after checking its small files."""
        run = RunFolder(Path(path), files, Manifest.read(Path(path)), None)
        if not run.manifest.complete:
            raise InputError(f"{path}: this run was interrupted while it was being created: start it again")
        texts = {TOKENIZER, SOURCE_TOKENIZER, TARGET_TOKENIZER, CHAT_TEMPLATE} & run.manifest.sha256.keys()
        for name in (SPEC, RECIPE, INFO, *sorted(texts)):
            run.read(name)
        return run

    @staticmethod
    def resume(path: str | Path, *, files: Files = DISK) -> "RunFolder":
        """Opens a run to go on with it: takes the lock and clears away what a killed process left half done."""
        path = Path(path)
        RunFolder.open(path)  # nothing is touched, not even by a lock, in a folder that is no run
        notes: list[str] = []
        lock = Lock.take(path, notes)
        try:
            run = RunFolder.open(path, files=files)
            run.lock, run.notes = lock, notes
            with explained(path):
                for old in [*filter(is_leftover, path.iterdir()), *(path / SNAPSHOTS).glob("*.tmp")]:
                    remove_tree(files, old)
            make_folder(files, path / SNAPSHOTS)
            if metrics.NAME in run.manifest.sha256:  # it is about to grow
                run.read_metrics()
                run._record(run.manifest.without(metrics.NAME))
            return run
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Lets go of the lock, after the metrics have been entered in the manifest."""
        if self.lock is None:
            return
        try:
            path = self.path / metrics.NAME
            with explained(path):
                if path.exists():
                    self.files.fsync(path)
                    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                    self._record(self.manifest.settled(metrics.NAME, sha256))
        finally:
            self.lock.release()
            self.lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Files

    def read(self, name: str) -> bytes:
        """The bytes of one file, checked against the manifest."""
        path = self.path / name
        while True:
            manifest = Manifest.read(self.path)
            if not os.path.isfile(path):
                raise InputError(
                    f"{path} is {'not a file' if os.path.exists(path) else 'missing'}: the run is incomplete"
                )
            data = path.read_bytes()
            if self._is_known(name, hashlib.sha256(data).hexdigest(), manifest):
                return data

    def write(self, name: str, data: bytes | Iterable[Chunk]) -> None:
        """Writes or replaces one file and its line in the manifest. Killed anywhere, the run has the old or the new."""
        self._must_hold_lock()
        if Path(name).name != name or name in (MANIFEST, LOCK, metrics.NAME):
            raise ValueError(f"{name!r} is not a name for a file of a run")
        with staged(self.files, self.path / name, data) as sha256:
            self._record(self.manifest.expecting(name, sha256))
        self._record(self.manifest.settled(name, sha256))

    @property
    def spec(self) -> dict[str, object]:
        return json.loads(self.read(SPEC))

    @property
    def recipe(self) -> str:
        return self.read(RECIPE).decode()

    @property
    def tokenizer(self) -> str | None:
        """The `tokenizer.json` of what the model writes; None where it knows no text."""
        return self._text(TOKENIZER) or self._text(TARGET_TOKENIZER)

    @property
    def source_tokenizer(self) -> str | None:
        """The one of what it reads, where that is another."""
        return self._text(SOURCE_TOKENIZER)

    @property
    def chat_template(self) -> str | None:
        """How conversations are written; None where nobody said it."""
        return self._text(CHAT_TEMPLATE)

    def _text(self, name: str) -> str | None:
        return self.read(name).decode() if name in self.manifest.sha256 else None

    @property
    def info(self) -> dict[str, object]:
        return json.loads(self.read(INFO))

    def write_info(self, info: Mapping[str, object]) -> None:
        self.write(INFO, _json(info))

    # Weights

    def weights(self, best: bool = False) -> "dict[str, Tensor]":
        """The last or the best weights, checked against the manifest; values that are not finite are noted."""
        path = self.path / _weights_name(best)
        if not path.exists():
            other = self.path / _weights_name(not best)
            hint = f"there is {other.name}" if other.exists() else "train on with `anyformer train --resume`"
            raise InputError(f"{self.path} has no {path.name}: none were written yet; {hint}")
        while True:
            manifest = Manifest.read(self.path)
            tensors, sha256 = read_tensors(path)
            if self._is_known(path.name, sha256, manifest):
                break
        for name, count in count_nonfinite(tensors).items():
            self.notes.append(f"{path}: {name} has {count} values that are not finite")
        return tensors

    def write_weights(self, tensors: "Mapping[str, Tensor]", best: bool = False) -> None:
        """Replaces the last or the best weights."""
        self.write(_weights_name(best), tensor_chunks(tensors, {"format": "pt"}))

    # Metrics

    def append_metrics(self, record: dict[str, object]) -> None:
        """Adds one line, which outlives this process from here on."""
        self._must_hold_lock()
        path = self.path / metrics.NAME
        data = metrics.line(record)
        with explained(path):
            try:
                self.files.append(path, b"\n" + data if self.torn else data)
                self.torn = False
            except OSError:
                self.torn = True  # perhaps half a line stands there: the next one starts afresh
                raise

    def read_metrics(self) -> list[dict[str, object]]:
        """The records of all lines that can be read; what cannot is noted."""
        path = self.path / metrics.NAME
        data = path.read_bytes() if path.is_file() else b""
        sha256 = hashlib.sha256(data).hexdigest()
        if metrics.NAME in self.manifest.sha256 and not self.manifest.accepts(metrics.NAME, sha256):
            self.notes.append(f"{path} has changed since the run was closed: it is damaged or was edited")
        return metrics.read(data, self.notes, str(path))

    def rewind_metrics(self, step: int) -> None:
        """Cuts a torn last line and the lines after `step`, which are about to be made again."""
        self._must_hold_lock()
        path = self.path / metrics.NAME
        data = path.read_bytes() if path.is_file() else b""
        if (kept := metrics.until(data, step)) != data:
            atomic_write(self.files, path, kept)

    # Snapshots

    def save_snapshot(self, snap: Snapshot, keep: int = 2, every: int = 1) -> Path:
        """Writes a snapshot and removes all but the newest `keep`; those between multiples of `every` go first.

        Once this returns, no kill or power cut loses it.
        """
        self._must_hold_lock()
        if keep < 1:
            raise ValueError(f"snapshots.keep is {keep}; at least one must be kept")
        folder = self.path / SNAPSHOTS
        with explained(self.path / metrics.NAME):
            if (self.path / metrics.NAME).exists():
                self.files.fsync(self.path / metrics.NAME)  # a resume from here finds the lines that led here
        path = snapshot.write(self.files, folder, snap)
        try:
            snapshot.prune(self.files, folder, path, keep, self.damaged, every)
        except OSError as error:  # the new one is safe: too many old ones are no reason to stop
            self.notes.append(f"an old snapshot in {folder} could not be removed: {error.strerror}")
        return path

    def latest_snapshot(self) -> Snapshot | None:
        """The newest snapshot whose hashes hold; a damaged one is noted and the one before it taken."""
        newest, self.damaged = snapshot.latest(self.path / SNAPSHOTS, self.notes)
        return newest

    def newest_snapshots(self, count: int) -> Iterator[Snapshot]:
        """The newest snapshots, each read when it is asked for; InputError names one that is damaged."""
        return map(snapshot.read, snapshot.found(self.path / SNAPSHOTS)[:count])

    def _must_hold_lock(self) -> None:
        if self.lock is None:
            raise ValueError(f"{self.path} is open for reading only: open it with RunFolder.resume to write")

    def _record(self, manifest: Manifest) -> None:
        # Kept even if writing it fails: a hash too many does no harm, one too few makes a good file look damaged.
        self.manifest = manifest
        manifest.write(self.files, self.path)

    def _is_known(self, name: str, sha256: str, manifest: Manifest) -> bool:
        """False: a running process has just replaced the file, read it again."""
        if manifest.accepts(name, sha256):
            return True
        if Manifest.read(self.path) == manifest:
            why = "its sha256 is not the one in" if name in manifest.sha256 else "it does not stand in"
            raise InputError(f"{self.path / name} is damaged or was edited: {why} {MANIFEST}")
        return False


def _weights_name(best: bool) -> str:
    return "weights.best.safetensors" if best else "weights.safetensors"


def _json(table: Mapping[str, object]) -> bytes:
    return json.dumps(dict(table), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _refuse_used(path: Path) -> None:
    go_on = "add --resume to go on with it, or choose another folder with --out"
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigError(f"{path} is a file: choose another folder with --out")
    if os.path.exists(path / MANIFEST):
        if Manifest.read(path).complete:
            raise ConfigError(f"{path} already holds a run: {go_on}")
    elif os.path.isdir(path) and any(inside.name != LOCK and not is_leftover(inside) for inside in path.iterdir()):
        raise ConfigError(f"{path} exists and is not empty: {go_on}")
