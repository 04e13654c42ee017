"""Tokenizers of one token per byte or per character, in their fast form: one look-up in a table.

The `tokenizers` library defines what they give; this is some fifty times as fast, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import InputError
from anyformer.data.byte_level import ALPHABET

Lookup = Callable[[str], NDArray[np.uint32]]
ONE_CHARACTER = r"[\s\S]"  # the pattern of the library's pre-tokenizer that takes every character apart
REPLACEMENT = "\ufffd"


def lookup(definition: dict[str, Any]) -> Lookup | None:
    """The table for a `tokenizer.json`, or None where text is more than looked up."""
    if definition["normalizer"] or definition["added_tokens"]:
        return None
    model, splitter = definition["model"], definition["pre_tokenizer"] or {"type": None}
    if model["type"] == "BPE" and not model["merges"] and splitter["type"] == "ByteLevel":
        plain = not splitter["add_prefix_space"] and set(model["vocab"]) == set(ALPHABET)
        return _of_bytes(model["vocab"]) if plain else None
    if model["type"] == "WordLevel" and splitter["type"] == "Split":
        plain = splitter["pattern"] == {"Regex": ONE_CHARACTER} and splitter["behavior"] == "Isolated"
        return _of_characters(model["vocab"]) if plain and all(len(word) == 1 for word in model["vocab"]) else None
    return None


def _of_bytes(vocabulary: dict[str, int]) -> Lookup:
    table = np.array([vocabulary[letter] for letter in ALPHABET], dtype=np.uint32)
    return lambda text: table[np.frombuffer(text.encode(), dtype=np.uint8)]


def _of_characters(vocabulary: dict[str, int]) -> Lookup:
    missing = -1
    known = max(map(ord, vocabulary), default=0)
    table = np.full(known + 2, vocabulary.get(REPLACEMENT, missing), dtype=np.int64)
    for character, token in vocabulary.items():
        table[ord(character)] = token

    def look(text: str) -> NDArray[np.uint32]:
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        ids = table[np.minimum(codes, known + 1)]
        if ids.size and ids.min() == missing:
            at = int((ids == missing).argmax())
            raise InputError(
                f"character {text[at]!r} (U+{ord(text[at]):04X}) is none of the {len(vocabulary)} that this tokenizer"
                " learnt from its training text: leave it out, or train with the tokenizer bytes or bpe, which know all"
            )
        return ids.astype(np.uint32)

    return look
