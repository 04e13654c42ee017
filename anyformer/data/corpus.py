"""Corpus: data made ready to train on, both of its sides encoded on the disk, and the tokenizers that did it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from anyformer.core.errors import InputError
from anyformer.core.spec import DataSpec, TokenizerSpec
from anyformer.data.base import TextData, TextTokenizerSpec, column
from anyformer.data.cache import cached, key_of
from anyformer.data.sides import Sides, sides
from anyformer.data.token_file import TokenFile, write_tokens
from anyformer.data.tokenizer import TextTokenizer

FORMAT = 2  # of what is cached; a change here makes all of it anew
T = TypeVar("T")


@dataclass(frozen=True)
class Tokenizers:
    """target: of the text that is read or written. source: of the column `source`; None: the same."""

    target: TextTokenizer
    source: TextTokenizer | None = None

    @property
    def of_source(self) -> TextTokenizer:
        """The one that encodes the column `source`."""
        return self.source or self.target

    @property
    def fingerprints(self) -> tuple[object, ...]:
        """What decides which tokens any text becomes."""
        both = (self.target,) if self.source is None else (self.target, self.source)
        chats = [] if self.target.chat is None else [self.target.chat.fingerprint]
        return (*((one.fingerprint, one.begin, one.end) for one in both), *chats)


@dataclass(frozen=True)
class Corpus(Generic[T]):
    """train, held_out: a TokenFile each where the data is one stream of text, else Examples.

    classes: the labels that rows carry. fingerprint: of both sides and the tokenizers; a run resumes only on the same.
    """

    train: T
    held_out: T
    tokenizers: Tokenizers
    fingerprint: str
    classes: tuple[str, ...] = ()

    @property
    def tokenizer(self) -> TextTokenizer:
        """The text side of the model's own ids."""
        return self.tokenizers.target


def text_data(data: DataSpec) -> TextData:
    """Data that holds texts; anything else is refused."""
    if not isinstance(data, TextData):
        raise ValueError(f"{type(data).__name__} is no text: a corpus is made of data such as text or python_docs")
    return data


def build(data: DataSpec, seed: int, tokenizer: TextTokenizer | None = None) -> Corpus[TokenFile]:
    """The texts of this data, one after the other; they are read once, and again only for what is not cached yet.

    seed: decides which documents are held out. tokenizer: one that exists (of a run that goes on, or of a model that is
    evaluated on other data); otherwise the data's own is trained, on the training text.
    """
    parts = sides(text_data(data), seed)
    known = None if tokenizer is None else Tokenizers(tokenizer)
    tokenizer = tokenizers_of(parts, seed, ["text"], known).target

    def write(folder: Path) -> None:
        for side in ("train", "held_out"):
            write_tokens(folder, side, (column(row, "text") for row in parts.rows(side)), tokenizer)

    folder = cached("tokens", key_of(*made_from(parts, seed), Tokenizers(tokenizer).fingerprints), write)
    train, held_out = TokenFile.open(folder, "train"), TokenFile.open(folder, "held_out")
    if train.constant:
        warnings.warn("the training text is one token over and over: a model learns nothing from it", stacklevel=2)
    fingerprint = key_of(train.fingerprint, held_out.fingerprint, tokenizer.fingerprint)
    return Corpus(train, held_out, Tokenizers(tokenizer), fingerprint)


def made_from(parts: Sides, seed: int) -> list[object]:
    """What decides which rows stand on which side."""
    return [FORMAT, parts.contents, parts.data.held_out, seed]


def tokenizers_of(parts: Sides, seed: int, columns: Iterable[str], known: Tokenizers | None = None) -> Tokenizers:
    """Those that are known, or the data's own, trained on these columns of the training rows."""
    if known is not None:
        return known
    data, columns = parts.data, tuple(columns)
    if data.source_tokenizer is None or "source" not in columns:
        return Tokenizers(_trained(data.tokenizer, parts, seed, columns))
    others = tuple(name for name in columns if name != "source")
    source = _trained(data.source_tokenizer, parts, seed, ("source",))
    return Tokenizers(_trained(data.tokenizer, parts, seed, others), source)


def _trained(spec: TokenizerSpec, parts: Sides, seed: int, columns: tuple[str, ...]) -> TextTokenizer:
    if not isinstance(spec, TextTokenizerSpec):
        raise ValueError(f"{type(spec).__name__} is no tokenizer of text: take bytes, characters or bpe")
    if (known := spec.existing()) is not None:
        return known
    if parts.data.held_out == 1 and parts.parts is not None:
        raise InputError("all of the text is held out, so there is none to train a tokenizer on: lower data.held_out")

    def write(folder: Path) -> None:
        spec.train(parts.texts("train", columns), parts.texts("held_out", columns)).save(folder / "tokenizer.json")

    folder = cached("tokenizers", key_of(*made_from(parts, seed), columns, spec.to_dict()), write)
    return TextTokenizer.load(folder / "tokenizer.json")
