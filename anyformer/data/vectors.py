"""Word vectors from files, aligned to a tokenizer's vocabulary: GloVe's text, word2vec's text and its binary form.

A line is a word and its numbers; word2vec's text begins with a line that says how many words there are and how wide
they are. A file that ends in .bin is word2vec's binary form: the same first line, then each word, a space and its
numbers as float32.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import InputError
from anyformer.data.reading import locate, read_lines

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.data.tokenizer import TextTokenizer

HEADER = re.compile(r"(\d{1,12}) (\d{1,12}) ?")  # how many words, how wide
LONGEST = 1 << 16  # bytes of a word in a binary file


class Vector(NamedTuple):
    """A word's numbers, (C,), and where in the file they stand."""

    word: str
    numbers: NDArray[np.float32]
    place: str


def align(path: str, tokenizer: TextTokenizer) -> tuple[Tensor, list[str]]:
    """(V, C), the vector of every token, and the tokens that have none: they get the mean of the others.

    A token's word is its text without the space that may belong to it. If a word is in the file twice, its first vector
    counts.
    """
    import torch

    words = [tokenizer.decode([token], special=True).strip() for token in range(tokenizer.vocabulary)]
    file = locate(path, field="model.embedding.vectors")
    if file.is_dir():
        raise InputError(f"{file} is a folder: name the file of word vectors in it")
    found: dict[str, NDArray[np.float32]] = {}
    for word, numbers, place in (_in_binary if file.suffix == ".bin" else _in_text)(file, set(words)):
        if not np.isfinite(numbers).all():
            raise InputError(f"{place}: the vector of {word!r} has a number that is infinite or not a number")
        found.setdefault(word, numbers)
    if not found:
        raise InputError(f"{file} has a vector for none of the tokenizer's {len(words)} tokens")
    mean: NDArray[np.float32] = np.array([*found.values()], dtype=np.float64).mean(0).astype(np.float32)
    vectors = np.array([found.get(word, mean) for word in words])
    return torch.from_numpy(vectors), [word for word in words if word not in found]


def _in_text(file: Path, wanted: Collection[str]) -> Iterator[Vector]:
    """The wanted words of a text file; of the other lines only the form is looked at."""
    declared = width = None
    words = 0
    for number, line in enumerate(read_lines(file), 1):
        place, line = f"{file}, line {number}", line.rstrip("\r\n ")
        if number == 1 and (header := HEADER.fullmatch(line)):
            declared, width = map(int, header.groups())
            continue
        width = line.count(" ") if width is None else width
        word, numbers = _parted(line, width, place)
        words += 1
        if word in wanted:
            yield Vector(word, _numbers(numbers, place), place)
    if not words:
        raise InputError(f"{file} holds no word vectors: it is empty")
    if declared is not None and declared != words:
        raise InputError(f"{file}, line 1 says {declared} words, but there are {words}: the file is damaged")


def _parted(line: str, width: int, place: str) -> tuple[str, list[str]]:
    """The word and its numbers. A few words of GloVe have spaces in them; if one would end in a number, it is none."""
    word, *numbers = line.rsplit(" ", width)
    if not (width and word) or len(numbers) < width or (" " in word and _is_number(word.rpartition(" ")[2])):
        raise InputError(f"{place} is not a word and {width or 'its'} numbers: the file is damaged, or no word vectors")
    return word, numbers


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(texts: list[str], place: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            return np.array([float(text) for text in texts]).astype(np.float32)
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None


def _in_binary(file: Path, wanted: Collection[str]) -> Iterator[Vector]:
    """The wanted words of a binary file, which is mapped into memory, not read."""
    try:
        with file.open("rb") as stream:
            if file.stat().st_size == 0:  # which cannot be mapped
                raise InputError(f"{file} holds no word vectors: it is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield from _mapped(data, file, wanted)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def _mapped(data: mmap.mmap, file: Path, wanted: Collection[str]) -> Iterator[Vector]:
    first = data.readline()
    header = HEADER.fullmatch(first[:64].decode("ascii", "replace").rstrip("\r\n"))
    words, width = map(int, header.groups()) if header else (0, 0)
    if not words or not width:
        raise InputError(f"{file}, line 1 does not say how many words there are and how wide: is it text, not .bin?")
    at, size = len(first), 4 * width
    for number in range(1, words + 1):
        place = f"{file}, word {number} of {words}"
        if data[at : at + 1] == b"\n":  # some writers end a word's numbers with one
            at += 1
        start = data.find(b" ", at, at + LONGEST) + 1
        try:
            word = data[at : start - 1].decode() if start else ""
        except UnicodeDecodeError:
            word = ""
        if not word or start + size > len(data):
            raise InputError(f"{place} is not a word and {width} numbers: the file, or what line 1 says, is damaged")
        if word in wanted:
            yield Vector(word, np.frombuffer(data[start : start + size], dtype="<f4"), place)
        at = start + size
    if data[at : at + 2] not in (b"", b"\n"):
        raise InputError(f"{file}, line 1 says {words} words of {width} numbers, but there is more: it is damaged")
