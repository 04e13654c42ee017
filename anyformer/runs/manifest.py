"""manifest.json: the format's version and the sha256 of every file of a run.

A file and its manifest cannot be renamed in one move. So each name has a list of hashes: before a file is replaced
the new hash is added, after it the old ones go. A kill in between leaves a manifest that knows either file.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from anyformer.core.errors import InputError
from anyformer.runs.files import Files, atomic_write

NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """`complete` is false while a run is being created."""

    complete: bool
    sha256: Mapping[str, tuple[str, ...]]

    @staticmethod
    def read(folder: Path) -> "Manifest":
        path = folder / NAME
        try:
            table = json.loads(path.read_bytes())
        except OSError as error:
            hint = "a run folder is made by `anyformer train`" if os.path.isdir(folder) else "there is no such folder"
            raise InputError(f"{folder} is not a run: no {NAME} can be read in it; {hint}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged: it is not JSON") from error
        match table:
            case {"format": int(version)} if version > FORMAT:
                raise InputError(
                    f"{folder} is a run of format {version}; this anyformer reads formats up to {FORMAT}: "
                    f"install an anyformer that reads format {version}"
                )
            case {"format": int(version), "complete": bool(complete), "sha256": dict(sha256)} if version == FORMAT:
                if all(isinstance(hashes, list) and all(type(h) is str for h in hashes) for hashes in sha256.values()):
                    return Manifest(complete, {name: tuple(hashes) for name, hashes in sha256.items()})
        raise InputError(f"{path} is damaged: it must have format, complete and sha256")

    def write(self, files: Files, folder: Path) -> None:
        table = {"format": FORMAT, "complete": self.complete, "sha256": dict(self.sha256)}
        atomic_write(files, folder / NAME, json.dumps(table, indent=2).encode() + b"\n")

    def expecting(self, name: str, sha256: str) -> "Manifest":
        """The manifest that must be on the disk before `name` is replaced."""
        return replace(self, sha256={**self.sha256, name: (*self.sha256.get(name, ()), sha256)})

    def settled(self, name: str, sha256: str) -> "Manifest":
        """The manifest after `name` has been replaced."""
        return replace(self, sha256={**self.sha256, name: (sha256,)})

    def without(self, name: str) -> "Manifest":
        return replace(self, sha256={other: hashes for other, hashes in self.sha256.items() if other != name})

    def accepts(self, name: str, sha256: str) -> bool:
        return sha256 in self.sha256.get(name, ())
