"""Vocabularies of pieces with scores (SentencePiece, Kudo & Richardson 2018), for the `tokenizers` library.

Unigram takes the pieces whose scores add up to most. BPE merges, again and again, the two neighbours that make the
piece with the best score: that is the same as an ordered list of merges, which is how the library has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from anyformer.core.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.decoders import Decoder
    from tokenizers.normalizers import Normalizer

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # the kinds, as SentencePiece and llama.cpp number them
SPACE = "\u2581"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
LONGEST = 256  # letters of a piece that merges make; every way to cut it in two is looked at


@dataclass(frozen=True)
class Piece:
    """text: with U+2581 for a space. kind: one of the six."""

    text: str
    score: float
    kind: int


def check_pieces(pieces: Sequence[Piece], where: str) -> None:
    """Every piece is there once."""
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        if piece.kind not in (NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE):
            raise InputError(f"{where}: token {number} is of kind {piece.kind}; kinds are 1 to 6")
        if not isfinite(piece.score):
            raise InputError(f"{where}: the score of token {number} is {piece.score}: the file is damaged")
        if seen.setdefault(piece.text, number) != number:
            raise InputError(f"{where}: tokens {seen[piece.text]} and {number} are both {piece.text[:40]!r}")
    if not pieces:
        raise InputError(f"{where}: has no tokens")


def scored_merges(pieces: Sequence[Piece], where: str) -> list[tuple[str, str]]:
    """The merges that scores stand for, the first to be made first."""
    ids = {piece.text: number for number, piece in enumerate(pieces) if piece.kind == NORMAL}
    for text in ids:
        if len(text) > LONGEST:
            raise InputError(f"{where}: {text[:20]!r}… has {len(text)} letters; a piece has at most {LONGEST}")
    made = sorted((-pieces[number].score, number) for number in ids.values())
    merges: list[tuple[str, str]] = []
    for text in (pieces[number].text for _, number in made):
        cuts = [(text[:cut], text[cut:]) for cut in range(1, len(text)) if text[:cut] in ids and text[cut:] in ids]
        merges += sorted(cuts, key=lambda pair: (ids[pair[0]], ids[pair[1]]))  # as published conversions have them
    return merges


def byte_pair(pieces: Sequence[Piece], merges: list[tuple[str, str]]) -> Tokenizer:
    """BPE over whole texts; letters that are no piece become their bytes, if the vocabulary has those."""
    from tokenizers import Tokenizer, models

    ids = {piece.text: number for number, piece in enumerate(pieces)}
    unknown = next((piece.text for piece in pieces if piece.kind == UNKNOWN), None)
    model = models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=_has_bytes(pieces))
    return with_special(Tokenizer(model), pieces)


def unigram(pieces: Sequence[Piece]) -> Tokenizer:
    """The most probable pieces."""
    from tokenizers import Tokenizer, models

    unknown = next((number for number, piece in enumerate(pieces) if piece.kind == UNKNOWN), None)
    scores = [(piece.text, piece.score) for piece in pieces]
    return with_special(Tokenizer(models.Unigram(scores, unk_id=unknown, byte_fallback=_has_bytes(pieces))), pieces)


def with_special(backend: Tokenizer, pieces: Sequence[Piece]) -> Tokenizer:
    """What is taken out of a text before the model sees it: control tokens, and pieces that a user asked for."""
    from tokenizers import AddedToken

    backend.add_tokens(
        [
            AddedToken(piece.text, normalized=False, special=piece.kind != USER)
            for piece in pieces
            if piece.kind in (UNKNOWN, CONTROL, USER)
        ]
    )
    return backend


def spaced(backend: Tokenizer, prefix: bool, before: Sequence[Normalizer] = ()) -> Tokenizer:
    """Spaces are pieces like any other. prefix: a text gets a space in front, and loses it again."""
    from tokenizers import decoders, normalizers

    first = [normalizers.Prepend(SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*before, *first, normalizers.Replace(" ", SPACE)])
    back: list[Decoder] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    return backend


def framed(backend: Tokenizer, first: str | None, last: str | None) -> Tokenizer:
    """Tokens that programs put around a text when they are asked for special ones."""
    from tokenizers import processors

    if first is not None or last is not None:
        one, other = ([f"{part}:0" for part in (first, text, last) if part is not None] for text in ("$A", "$B"))
        ends = {token: backend.token_to_id(token) for token in (first, last) if token is not None}
        backend.post_processor = processors.TemplateProcessing(one, [*one, *other], list(ends.items()))
    return backend


def _has_bytes(pieces: Sequence[Piece]) -> bool:
    return {piece.text for piece in pieces if piece.kind == BYTE} == {*BYTES}
