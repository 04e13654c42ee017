"""Corpus: text data made ready to train on, as two token files and the tokenizer that made them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from anyformer.core.errors import InputError
from anyformer.core.spec import DataSpec
from anyformer.data.base import TextData, TextTokenizerSpec
from anyformer.data.cache import cached, key_of
from anyformer.data.split import Split, split
from anyformer.data.token_file import TokenFile, write_tokens
from anyformer.data.tokenizer import TextTokenizer

FORMAT = 1  # of what is cached; a change here makes all of it anew


@dataclass(frozen=True)
class Corpus:
    """fingerprint: of both splits' tokens and of the tokenizer; a run resumes only on data that has the same."""

    train: TokenFile
    held_out: TokenFile
    tokenizer: TextTokenizer
    fingerprint: str


def build(data: DataSpec, seed: int, tokenizer: TextTokenizer | None = None) -> Corpus:
    """The corpus of this data; the documents are read once, and again only for what is not cached yet.

    seed: decides which documents are held out. tokenizer: one that exists (of a run that goes on, or of a model that is
    evaluated on other data); otherwise the data's own is trained, on the training text.
    """
    if not isinstance(data, TextData):
        raise ValueError(f"{type(data).__name__} is no text: a corpus is made of data such as text or python_docs")
    parts = split(data.documents(), data.held_out, seed)
    made_from = [FORMAT, parts.contents, data.held_out, seed]
    if tokenizer is None:
        tokenizer = _trained(data, parts, made_from)

    def write(folder: Path) -> None:
        write_tokens(folder, "train", parts.training(data.documents()), tokenizer)
        write_tokens(folder, "held_out", parts.held_out(data.documents()), tokenizer)

    ends = [tokenizer.begin, tokenizer.end]
    folder = cached("tokens", key_of(*made_from, tokenizer.fingerprint, ends), write)
    train, held_out = TokenFile.open(folder, "train"), TokenFile.open(folder, "held_out")
    if train.constant:
        warnings.warn("the training text is one token over and over: a model learns nothing from it", stacklevel=2)
    fingerprint = key_of(train.fingerprint, held_out.fingerprint, tokenizer.fingerprint)
    return Corpus(train, held_out, tokenizer, fingerprint)


def _trained(data: TextData, parts: Split, made_from: list[object]) -> TextTokenizer:
    spec = data.tokenizer
    if not isinstance(spec, TextTokenizerSpec):
        raise ValueError(f"{type(spec).__name__} is no tokenizer of text: take bytes, characters or bpe")
    if data.held_out == 1:
        raise InputError("all of the text is held out, so there is none to train a tokenizer on: lower data.held_out")

    def write(folder: Path) -> None:
        training, held_out = parts.training(data.documents()), parts.held_out(data.documents())
        spec.train(training, held_out).save(folder / "tokenizer.json")

    folder = cached("tokenizers", key_of(*made_from, spec.to_dict()), write)
    return TextTokenizer.load(folder / "tokenizer.json")
