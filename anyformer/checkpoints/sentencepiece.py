"""SentencePiece's `tokenizer.model` (Kudo & Richardson 2018): a protobuf of pieces with scores, as a `tokenizer.json`.

A message is a run of fields: a varint of 8 number + wire type, then a varint (0), 8 bytes (1), a length and bytes (2)
or 4 bytes (5). Numbers are those of sentencepiece_model.proto; unknown fields are passed over, as protobuf asks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyformer.checkpoints.pieces import (
    NORMAL,
    SPACE,
    Piece,
    byte_pair,
    check_pieces,
    scored_merges,
    spaced,
    unigram,
)
from anyformer.core.errors import InputError
from anyformer.data.guard import guarded
from anyformer.runs.header import opened

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LARGEST = 2**26  # bytes
UNIGRAM, BPE = 1, 2  # of TrainerSpec.ModelType; words and characters are not read
VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5


@dataclass(frozen=True)
class SentencePiece:
    """What a file says. charsmap: a table of what becomes of letters, in the library's own form.

    prefix: a text gets a space in front. squeezed: spaces at its ends are taken off, and several are one.
    """

    pieces: list[Piece]
    kind: int
    charsmap: bytes
    prefix: bool
    squeezed: bool


def read_sentencepiece(path: Path) -> SentencePiece:
    """The pieces of a file, and what is done to a text before it is cut into them."""
    with opened(path, "a SentencePiece model") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise InputError(f"{path}: longer than {LARGEST} bytes: this is no SentencePiece model")
    where = str(path)
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for field, value in _fields(data, where):
        if field == 1:
            pieces.append(_piece(_message(value, where), where))
        elif field == 2:
            trainer |= dict(_fields(_message(value, where), where))
        elif field == 3:
            normalizer |= dict(_fields(_message(value, where), where))
    check_pieces(pieces, where)
    kind = _number(trainer, 3, UNIGRAM, where)
    if kind not in (UNIGRAM, BPE):
        raise InputError(f"{where}: its pieces are words or characters; those read are Unigram and BPE")
    if _number(trainer, 24, 0, where) or not _number(normalizer, 5, 1, where):
        raise InputError(f"{where}: spaces stand behind words in it, or are no letters: such models are not read")
    return SentencePiece(
        pieces,
        kind,
        _message(normalizer.get(2, b""), where),
        bool(_number(normalizer, 3, 1, where)),
        bool(_number(normalizer, 4, 1, where)),
    )


def backend_of(model: SentencePiece, where: str) -> Tokenizer:
    """The same tokenizer in the `tokenizers` library."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    with guarded(where):
        pieces = model.pieces
        backend = byte_pair(pieces, scored_merges(pieces, where)) if model.kind == BPE else unigram(pieces)
        first = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
        if not model.squeezed:
            return spaced(backend, model.prefix, first)
        backend.normalizer = normalizers.Sequence(
            [*first, normalizers.Strip(left=not model.prefix, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
        )
        scheme = "always" if model.prefix else "never"
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme)
        backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)
        return backend


def _fields(data: bytes, where: str) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: numbers, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at, where)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(data, at, where)
            yield field, value
            continue
        if wire == BYTES:
            size, at = _varint(data, at, where)
        elif wire in (WIDE, NARROW):
            size = 8 if wire == WIDE else 4
        else:
            raise InputError(f"{where}: is no SentencePiece model: a field of wire type {wire}")
        if size > len(data) - at:
            raise InputError(f"{where}: cut short, or no SentencePiece model: a field of {size} bytes")
        yield field, data[at : at + size]
        at += size


def _varint(data: bytes, at: int, where: str) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the eighth says that there are more."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise InputError(f"{where}: cut short, or no SentencePiece model")


def _message(value: int | bytes, where: str) -> bytes:
    if not isinstance(value, bytes):
        raise InputError(f"{where}: is no SentencePiece model: a number where a message should be")
    return value


def _number(fields: dict[int, int | bytes], field: int, default: int, where: str) -> int:
    value = fields.get(field, default)
    if not isinstance(value, int):
        raise InputError(f"{where}: is no SentencePiece model: bytes where a number should be")
    return value


def _piece(data: bytes, where: str) -> Piece:
    fields = dict(_fields(data, where))
    score = _message(fields.get(2, bytes(4)), where)
    try:
        return Piece(
            _message(fields.get(1, b""), where).decode(),
            struct.unpack("<f", score)[0],
            _number(fields, 3, NORMAL, where),
        )
    except (UnicodeDecodeError, struct.error):
        raise InputError(f"{where}: is no SentencePiece model: a piece without text or score") from None
