"""TextTokenizer: text to token numbers and back, whatever the vocabulary; saved as a Hugging Face `tokenizer.json`."""

from __future__ import annotations

import copy
import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from anyformer.core.errors import InputError
from anyformer.data.byte_level import token_bytes
from anyformer.data.guard import check_text, guarded
from anyformer.data.lookup import Lookup, lookup
from anyformer.data.pieces import SIZE, pieces
from anyformer.data.stream import ByteStream, Stream, WindowStream

if TYPE_CHECKING:
    from anyformer.data.chat import ChatTemplate

# A tokenizer.json does not say what its special tokens are for: these are the names in use.
ROLES = {
    "begin": ("<|endoftext|>", "<s>", "<bos>", "<|begin_of_text|>", "[CLS]"),
    "end": ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[SEP]"),
    "pad": ("<pad>", "<|pad|>", "[PAD]"),
    "unknown": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
    "start": ("[CLS]", "<cls>", "<s>"),
    "separator": ("[SEP]", "<sep>", "</s>"),
}
NAMES = {name for names in ROLES.values() for name in names}


@dataclass(frozen=True)
class Roles:
    """What a published model's special tokens are for, where its own files say it; None: by the names in use.

    begin, pad: as in TextTokenizer. ends: each of them ends a text, the first is the one that is written. before,
    after: what stands around each text that the model reads.
    """

    begin: int | None = None
    ends: tuple[int, ...] = ()
    pad: int | None = None
    before: tuple[int, ...] | None = None
    after: tuple[int, ...] | None = None


class TextTokenizer:
    """A tokenizer of the `tokenizers` library, with the ids of its special tokens by what they are for.

    begin, end: of a document. start, separator: before all that an encoder reads, and after each text of it. pad, mask,
    unknown: as they say. None: it has none. Special tokens written in a text, `<|endoftext|>` say, are that text and
    nothing else unless `special` is asked for; decoding leaves them out unless asked. No token is added at either end.
    chat: how conversations are written; None: nobody said it.
    """

    chat: ChatTemplate | None = None

    def __init__(self, backend: Tokenizer, roles: Roles = Roles()) -> None:
        backend.no_truncation()  # of a published one: a text is never cut without a word
        backend.no_padding()
        self.definition = backend.to_str()
        self.plain = backend
        self.plain.encode_special_tokens = True  # the library's way to say: as plain text
        special = {text.content: id for id, text in backend.get_added_tokens_decoder().items() if text.special}
        self.controls, self.special = frozenset(special), frozenset(special.values())
        self.begin, self.end, self.pad, self.unknown, self.mask, self.start, self.separator = (
            next((special[name] for name in names if name in special), None) for names in ROLES.values()
        )
        self.roles = roles
        if roles.begin is not None:
            self.begin = roles.begin
        if roles.pad is not None:
            self.pad = roles.pad
        if roles.ends:
            self.end = roles.ends[0]
        self.vocabulary = max(backend.get_vocab().values(), default=-1) + 1
        """How many ids there are: every id is below it."""

    @classmethod
    def read(cls, definition: str, what: str = "tokenizer.json", roles: Roles = Roles()) -> TextTokenizer:
        """From the text of a `tokenizer.json`."""
        with guarded(what):
            return cls(Tokenizer.from_str(definition), roles)

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """From a `tokenizer.json`."""
        try:
            definition = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no tokenizer can be read there: {error}") from None
        return cls.read(definition, str(path))

    @property
    def first(self) -> int | None:
        """What a target starts from: the begin token, or the end token where there is no other."""
        return self.end if self.begin is None else self.begin

    def begun(self, text: str) -> list[int]:
        """A text after the begin token, where there is one: what a decoder goes on from."""
        if text and self.roles.before is not None:
            return [*self.roles.before, *self.encode(text)]
        return ([] if self.begin is None else [self.begin]) + self.encode(text)

    def ended(self, text: str) -> list[int]:
        """A text before the end token, where there is one: what an encoder reads."""
        if self.roles.before is not None and self.roles.after is not None:
            return [*self.roles.before, *self.encode(text), *self.roles.after]
        return self.encode(text) + ([] if self.end is None else [self.end])

    def with_chat(self, chat: ChatTemplate | None) -> TextTokenizer:
        """The same with another chat template."""
        made = copy.copy(self)
        made.chat = chat
        return made

    @property
    def names(self) -> dict[str, str]:
        """The texts of special tokens by what published settings call them, as far as there are any."""
        ids = {"bos_token": self.begin, "eos_token": self.end, "pad_token": self.pad, "unk_token": self.unknown}
        return {name: self.decode([id], special=True) for name, id in ids.items() if id is not None}

    @property
    def ends(self) -> frozenset[int]:
        """Every token that ends a text."""
        return frozenset(self.roles.ends) | (frozenset() if self.end is None else {self.end})

    def save(self, path: Path) -> None:
        """As a `tokenizer.json`."""
        path.write_text(self.definition, "utf-8")

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides which tokens a text becomes."""
        return hashlib.sha256(self.definition.encode()).hexdigest()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of a text."""
        check_text(text)
        if self._lookup is not None:
            return self._lookup(text).tolist()
        with guarded("this text cannot be encoded"):
            ids = (self._knowing if special else self.plain).encode(text, add_special_tokens=False).ids
        return ids if special else self._as_text(ids)

    def encode_with_offsets(self, text: str, *, special: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of a text, and the characters of it that each stands for: text[start:end].

        A token that begins with a space has that space; tokens that are bytes of one character all have it.
        """
        ids = self.encode(text, special=special)
        with guarded("this text cannot be encoded"):
            return ids, (self._knowing if special else self.plain).encode(text, add_special_tokens=False).offsets

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """The tokens of each word of a text whose words are divided by spaces; a space belongs to the word after it.

        A word of which the tokenizer keeps nothing (a control character, for WordPiece) has none.
        """
        ids, offsets = self.encode_with_offsets(" ".join(words))
        ends = [length - 1 for length in accumulate(len(word) + 1 for word in words)]
        parts: list[list[int]] = [[] for _ in words]
        for token, (start, _) in zip(ids, offsets, strict=True):
            parts[bisect_right(ends, start)].append(token)
        return parts

    def encode_documents(self, documents: Iterable[str], size: int = SIZE) -> Iterator[tuple[int, NDArray[np.uint32]]]:
        """The tokens of many texts, in order: pairs of a text's number, from 0, and some of its tokens.

        Texts are worked on together up to about `size` characters, and long ones come in several parts, so that memory
        is bounded however long they are. Tokenizers that look further than a word (a normalizer, a prefix) get each
        text whole, since they would not give the same tokens for its pieces.
        """
        batch: list[tuple[int, str]] = []
        held = 0
        for number, text in enumerate(documents):
            check_text(text)
            for piece in pieces(text, size) if self._local else (text,):
                batch.append((number, piece))
                held += len(piece)
                if held >= size:
                    yield from self._encode_batch(batch)
                    batch, held = [], 0
        yield from self._encode_batch(batch)

    def decode(self, ids: Sequence[int] | NDArray[np.integer], *, special: bool = False) -> str:
        """The text of some tokens; bytes that are no UTF-8 become U+FFFD."""
        numbers = [int(token) for token in ids]
        for at, token in enumerate(numbers):
            if not 0 <= token < self.vocabulary:  # the library would leave it out without a word
                raise InputError(f"token {token} at {at} is outside of the vocabulary: 0 to {self.vocabulary - 1}")
        with guarded("these tokens cannot be decoded"):
            return self.plain.decode(numbers, skip_special_tokens=not special)

    def stream(self, *, special: bool = False) -> Stream:
        """A decoder for one text that arrives token by token."""
        silent = frozenset() if special else self.special
        if not self._byte_level:
            return WindowStream(lambda ids: self.decode(ids, special=special), silent)
        return ByteStream(lambda token: b"" if token in silent else token_bytes(self._token(token)))

    def _encode_batch(self, batch: list[tuple[int, str]]) -> Iterator[tuple[int, NDArray[np.uint32]]]:
        if self._lookup is not None:
            for number, text in batch:
                yield number, self._lookup(text)
            return
        with guarded("a text cannot be encoded"):
            encodings = self.plain.encode_batch_fast([text for _, text in batch], add_special_tokens=False)
        for (number, _), encoding in zip(batch, encodings, strict=True):
            yield number, np.array(self._as_text(encoding.ids), dtype=np.uint32)

    def _as_text(self, ids: list[int]) -> list[int]:
        """A Unigram model takes a text that reads like a special token for it: that is unknown text, and no more."""
        if self._layout["model"]["type"] != "Unigram" or self.special.isdisjoint(ids):
            return ids
        if self.unknown is None:
            raise InputError("the text reads like a special token of this tokenizer, which cannot tell them apart")
        return [self.unknown if token in self.special else token for token in ids]

    def _token(self, token: int) -> str:
        text = self.plain.id_to_token(token) if 0 <= token < self.vocabulary else None
        if text is None:
            raise InputError(f"token {token} is outside of the vocabulary: 0 to {self.vocabulary - 1}")
        return text

    @cached_property
    def _layout(self) -> dict[str, Any]:
        return json.loads(self.definition)

    @cached_property
    def _lookup(self) -> Lookup | None:
        return lookup(self._layout)

    @cached_property
    def _byte_level(self) -> bool:
        decoder = self._layout["decoder"]
        return decoder is not None and decoder["type"] == "ByteLevel"

    @cached_property
    def _local(self) -> bool:
        """Whether a piece of a text, cut at the end of a word, becomes the tokens that it becomes inside of it."""
        if self._lookup is not None:
            return True
        splitter, normalizer = self._layout["pre_tokenizer"], self._layout["normalizer"]
        if splitter is None or not all(token["special"] for token in self._layout["added_tokens"]):
            return False
        if splitter["type"] == "BertPreTokenizer":
            return normalizer is None or normalizer["type"] == "BertNormalizer"
        plain = splitter["type"] == "ByteLevel" and splitter["use_regex"] and not splitter["add_prefix_space"]
        return plain and normalizer is None

    @cached_property
    def _knowing(self) -> Tokenizer:
        """The same, but it knows special tokens in a text: a copy, since the library keeps this as a setting."""
        return Tokenizer.from_str(self.definition)
