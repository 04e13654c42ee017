"""Text files as they come: found, unpacked, decoded, and refused by name and place where they are damaged."""

import codecs
import gzip
import itertools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO, Literal, cast

from anyformer.core.errors import InputError

SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex", ".org")  # each may end in .gz
CHUNK = 1 << 20
LONGEST = 1 << 26  # bytes of one line: what is longer is no line of text
BOMB = 200  # times its packed size: text packs 2 to 20 times, repetition made to fill memory 1000 times


def data_folder() -> Path:
    """Where data that is not shipped is looked for."""
    return Path(os.environ.get("ANYFORMER_DATA") or "data")


def find(path: str, source: str = "", suffixes: tuple[str, ...] = SUFFIXES, field: str = "data.path") -> list[Path]:
    """The text files that a path names: itself, or all in it, sorted. `source` is said where there is none."""
    found = locate(path, source, field)
    return _inside(found, suffixes) if found.is_dir() else [found]


def locate(path: str, source: str = "", field: str = "data.path") -> Path:
    """The file or folder of that name, as given or in the data folder. field: what the path was written as."""
    given = Path(path).expanduser()
    places = [given] if given.is_absolute() else [given, data_folder() / given]
    for place in places:
        try:
            mode = place.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise InputError(f"{place}: cannot be read: {_reason(error)}") from None
        if not S_ISREG(mode) and not S_ISDIR(mode):
            raise InputError(f"{place} is neither a file nor a folder: name a text file or a folder of them")
        return place
    looked = " nor ".join(str(place) for place in places)
    what = f" ({source})" if source else ""
    raise InputError(
        f"no {looked}{what}: put it there, set ANYFORMER_DATA to the folder that holds it, or say --set {field}=..."
    )


def _inside(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    def stop(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {_reason(error)}") from None

    endings = (*suffixes, *(suffix + ".gz" for suffix in suffixes))
    files = [
        Path(at, name)
        for at, _, names in os.walk(folder, onerror=stop)
        for name in names
        if name.lower().endswith(endings) and not name.startswith(".") and Path(at, name).is_file()
    ]
    if not files:
        raise InputError(f"{folder} holds no text: none of its files ends in {' '.join(suffixes)}, packed (.gz) or not")
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
        raise _no_utf8(f"{file}: byte {mark + error.start}", data[mark + error.start], data) from None


def read_lines(file: Path, errors: Literal["strict", "replace", "surrogateescape"] = "strict") -> Iterator[str]:
    """The lines of one file, decoded as `read_text` does, with their ends; one at a time is held in memory.

    A line ends with a line feed and with nothing else.
    """
    size, first = 0, b""
    try:
        packed = max(file.stat().st_size, CHUNK)
        with cast(BinaryIO, gzip.open(file)) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            for number in itertools.count(1):
                line = stream.readline(LONGEST)
                if not line:
                    return
                size += len(line)
                if len(line) == LONGEST:
                    raise InputError(f"{file}, line {number}: longer than {LONGEST} bytes, which no line of text is")
                if size > BOMB * packed:
                    raise _bomb(file)
                if number == 1:
                    first, line = line, line.removeprefix(codecs.BOM_UTF8)
                try:
                    text = line.decode("utf-8", errors)
                except UnicodeDecodeError as error:
                    where = f"{file}, line {number}: byte {error.start} of it"
                    raise _no_utf8(where, line[error.start], first) from None
                yield text
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read: {_reason(error)}") from None


def _no_utf8(where: str, byte: int, start: bytes) -> InputError:
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return InputError(
        f"{where} (0x{byte:02x}) is no UTF-8{', the file looks like UTF-16' if utf16 else ''}: convert the file, or"
        " read it with --set data.errors=replace"
    )


def _unpack(file: Path) -> bytes:
    packed, unpacked = max(file.stat().st_size, CHUNK), bytearray()
    with gzip.open(file) as stream:
        while chunk := stream.read(CHUNK):
            unpacked += chunk
            if len(unpacked) > BOMB * packed:
                raise _bomb(file)
    return bytes(unpacked)


def _bomb(file: Path) -> InputError:
    return InputError(
        f"{file}: unpacks to more than {BOMB} times its size, which no text does: unpack it yourself if you trust it"
    )


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
