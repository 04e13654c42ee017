"""Text files as they come: found, unpacked, decoded, and refused by name and place where they are damaged."""

import codecs
import gzip
import os
import zlib
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Literal

from anyformer.core.errors import InputError

SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex", ".org")  # each may end in .gz
CHUNK = 1 << 20
BOMB = 200  # times its packed size: text packs 2 to 20 times, repetition made to fill memory 1000 times


def data_folder() -> Path:
    """Where data that is not shipped is looked for."""
    return Path(os.environ.get("ANYFORMER_DATA") or "data")


def find(path: str, source: str = "") -> list[Path]:
    """The text files that a path names: itself, or all in it, sorted. `source` is said where there is none."""
    given = Path(path).expanduser()
    places = [given] if given.is_absolute() else [given, data_folder() / given]
    for place in places:
        try:
            mode = place.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise InputError(f"{place}: cannot be read: {_reason(error)}") from None
        if S_ISREG(mode):
            return [place]
        if not S_ISDIR(mode):
            raise InputError(f"{place} is neither a file nor a folder: name a text file or a folder of them")
        return _inside(place)
    looked = " nor ".join(str(place) for place in places)
    what = f" ({source})" if source else ""
    raise InputError(
        f"no {looked}{what}: put it there, set ANYFORMER_DATA to the folder that holds it, or say --set data.path=..."
    )


def _inside(folder: Path) -> list[Path]:
    def stop(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {_reason(error)}") from None

    endings = (*SUFFIXES, *(suffix + ".gz" for suffix in SUFFIXES))
    files = [
        Path(at, name)
        for at, _, names in os.walk(folder, onerror=stop)
        for name in names
        if name.lower().endswith(endings) and not name.startswith(".") and Path(at, name).is_file()
    ]
    if not files:
        raise InputError(f"{folder} holds no text: none of its files ends in {' '.join(SUFFIXES)}, packed (.gz) or not")
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def read_text(file: Path, errors: Literal["strict", "replace"] = "strict") -> str:
    """The text of one file: UTF-8, without the mark (BOM) that some editors put first; line ends and NULs as they are.

    One file at a time is held in memory.
    """
    try:
        data = _unpack(file) if file.suffix.lower() == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read: {_reason(error)}") from None
    mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return str(memoryview(data)[mark:], "utf-8", errors)
    except UnicodeDecodeError as error:
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise InputError(
            f"{file}: byte {mark + error.start} (0x{data[mark + error.start]:02x}) is no UTF-8"
            f"{', the file looks like UTF-16' if utf16 else ''}: convert the file, or read it with --set"
            " data.errors=replace"
        ) from None


def _unpack(file: Path) -> bytes:
    packed, unpacked = max(file.stat().st_size, CHUNK), bytearray()
    with gzip.open(file) as stream:
        while chunk := stream.read(CHUNK):
            unpacked += chunk
            if len(unpacked) > BOMB * packed:
                raise InputError(
                    f"{file}: unpacks to more than {BOMB} times its size, which no text does: unpack it yourself if"
                    " you trust it"
                )
    return bytes(unpacked)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
