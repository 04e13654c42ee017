"""The tokenizer of a GGUF file, as a `tokenizer.json`, and back.

llama.cpp has two that matter here. `llama`: pieces with scores, SentencePiece's BPE. `gpt2`: byte-level BPE with a list
of merges; how it cuts a text into words is only named, so that the names have to be known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tokenizers import Tokenizer, decoders, models

from anyformer.checkpoints.pieces import (
    BYTE,
    BYTES,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER,
    Piece,
    byte_pair,
    check_pieces,
    framed,
    scored_merges,
    spaced,
    with_special,
)
from anyformer.core.errors import ConfigError, InputError
from anyformer.data.guard import guarded

T = TypeVar("T")

PREFIX = "tokenizer.ggml."
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
BYTES_ALONE = {**GPT2, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str) -> dict[str, Any]:
    """A pre-tokenizer's data: words are what a pattern finds, and what stands between."""
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, BYTES_ALONE]}


@dataclass(frozen=True)
class Words:
    """How texts are cut into words. whole: a word that is a token is not cut further. first: it begins with bos."""

    splitter: Mapping[str, Any]
    normalizer: Mapping[str, Any] | None = None
    whole: bool = False
    first: bool = False


WORDS = {
    "gpt-2": Words(GPT2),
    "llama-bpe": Words(_split(LLAMA3), whole=True, first=True),
    "qwen2": Words(_split(QWEN2), normalizer={"type": "NFC"}),
    "smollm": Words({"type": "Sequence", "pretokenizers": [DIGITS, GPT2]}),
}
ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2", "starcoder": "smollm"}


def tokenizer_of(metadata: Mapping[str, Any], where: str) -> str | None:
    """The text of a `tokenizer.json`; None where the file has no tokenizer."""
    if f"{PREFIX}model" not in metadata:
        return None
    keys = Keys(metadata, where)
    kind = keys.get("model", str)
    if kind not in ("llama", "gpt2"):
        raise InputError(f"{where}: its tokenizer is {kind!r}; those read are llama and gpt2")
    pieces = _pieces(keys)
    with guarded(f"{where}: its tokenizer"):
        return (_spaced if kind == "llama" else _byte_level)(keys, pieces).to_str()


class Keys:
    """The keys of a tokenizer, by their type."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self.metadata, self.where = metadata, where

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self.metadata.get(f"{PREFIX}{key}", default)
        if type(value) is not kind:
            raise InputError(f"{self.where}: {PREFIX}{key} should be of type {kind.__name__}; came {value!r:.60}")
        return value

    def several(self, key: str, kind: type[T]) -> list[T]:
        values = self.get(key, list)
        if not all(type(value) is kind for value in values):
            raise InputError(f"{self.where}: {PREFIX}{key} should be a list of type {kind.__name__}")
        return values

    def token(self, name: str, pieces: list[Piece]) -> str | None:
        """The text of the token that plays a part."""
        key = f"{name}_token_id"
        if f"{PREFIX}{key}" not in self.metadata:
            return None
        if not 0 <= (number := self.get(key, int)) < len(pieces):
            raise InputError(f"{self.where}: {PREFIX}{key} is {number}; there are {len(pieces)} tokens")
        return pieces[number].text

    def ends(self, pieces: list[Piece], first: bool) -> tuple[str | None, str | None]:
        """What a text begins and ends with. first: whether it begins with bos where the file does not say."""
        begin = self.token("bos", pieces) if self.get("add_bos_token", bool, first) else None
        return begin, self.token("eos", pieces) if self.get("add_eos_token", bool, False) else None


def _pieces(keys: Keys) -> list[Piece]:
    tokens = keys.several("tokens", str)
    lists: dict[str, list[Any]] = {"scores": [0.0] * len(tokens), "token_type": [NORMAL] * len(tokens)}
    for key, kind in (("scores", float), ("token_type", int)):
        if f"{PREFIX}{key}" in keys.metadata:
            lists[key] = keys.several(key, kind)
        if len(lists[key]) != len(tokens):
            raise InputError(f"{keys.where}: {len(lists[key])} {key} for {len(tokens)} tokens")
    pieces = [Piece(*row) for row in zip(tokens, lists["scores"], lists["token_type"], strict=True)]
    check_pieces(pieces, keys.where)
    return pieces


def _spaced(keys: Keys, pieces: list[Piece]) -> Tokenizer:
    backend = byte_pair(pieces, scored_merges(pieces, keys.where))
    return framed(spaced(backend, keys.get("add_space_prefix", bool, True)), *keys.ends(pieces, first=True))


def _byte_level(keys: Keys, pieces: list[Piece]) -> Tokenizer:
    name = keys.get("pre", str, "missing")
    words = WORDS.get(ALIASES.get(name, name))
    if words is None:
        raise InputError(f"{keys.where}: {PREFIX}pre is {name!r}; those known are {', '.join([*WORDS, *ALIASES])}")
    merges = [_parts(merge, keys.where) for merge in keys.several("merges", str)]
    ids = {piece.text: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(ids, merges, ignore_merges=words.whole))
    backend.decoder = decoders.ByteLevel()
    tree = json.loads(framed(with_special(backend, pieces), *keys.ends(pieces, words.first)).to_str())
    tree |= {"pre_tokenizer": _defaults(words.splitter), "normalizer": words.normalizer}
    return Tokenizer.from_str(json.dumps(tree))


def _parts(merge: str, where: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right or " " in right:
        raise InputError(f"{where}: {merge[:40]!r} is no merge: a merge is two tokens with a space between them")
    return left, right


def _defaults(splitter: Mapping[str, Any]) -> dict[str, Any]:
    """With the one field that decides nothing about tokens, and that the library asks for."""
    if splitter["type"] == "Sequence":
        return {**splitter, "pretokenizers": [_defaults(inner) for inner in splitter["pretokenizers"]]}
    return {**splitter, "trim_offsets": True} if splitter["type"] == "ByteLevel" else dict(splitter)


# and back


def keys_of(definition: str, vocabulary: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a `tokenizer.json`. vocabulary: how many tokens the model has, of which some may be unused.

    config: for the ids of the tokens that begin, end and fill a text.
    """
    with guarded("the tokenizer"):
        tree = json.loads(Tokenizer.from_str(definition).to_str())  # in the library's newest form
    model = tree["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ConfigError(f"a GGUF file has no place for a tokenizer of type {model['type']} such as this one")
    pieces = _listed(tree, vocabulary)
    made = _of_spaced(tree, pieces) if model.get("byte_fallback") else _of_byte_level(tree)
    made |= {"tokens": [piece.text for piece in pieces], "token_type": [piece.kind for piece in pieces]}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        number = config.get(f"{name}_token_id")
        if isinstance(number, list):  # several that end a text: the first is what a file can name
            number = number[0]
        if number is not None:
            made[f"{key}_token_id"] = number
    if model.get("unk_token") is not None:
        made["unknown_token_id"] = model["vocab"][model["unk_token"]]
    for end, at in (("bos", 0), ("eos", -1)):
        number = made.get(f"{end}_token_id")
        made[f"add_{end}_token"] = number is not None and _end(tree["post_processor"], at) == pieces[number].text
    made = {f"{PREFIX}{key}": value for key, value in made.items()}
    _proven(model["merges"], made)
    return made


def _listed(tree: Mapping[str, Any], vocabulary: int) -> list[Piece]:
    """The tokens in the order of their ids, with a score for each: less for what is merged later."""
    model = tree["model"]
    scores: dict[str, float] = {}
    for left, right in model["merges"]:
        scores.setdefault(left + right, -float(len(scores)))
    ids = {number: text for text, number in model["vocab"].items()}
    kinds = dict.fromkeys(BYTES, BYTE) if model.get("byte_fallback") else {}
    for token in tree["added_tokens"]:
        ids[token["id"]] = token["content"]
        kinds[token["content"]] = CONTROL if token["special"] else USER
    if model.get("unk_token") is not None:
        kinds[model["unk_token"]] = UNKNOWN
    if max(ids, default=0) >= vocabulary:
        raise ConfigError(f"the tokenizer has the id {max(ids)}, but the model has {vocabulary} tokens")
    last = -float(len(scores))
    return [
        Piece(ids[number], scores.get(ids[number], last), kinds.get(ids[number], NORMAL))
        if number in ids
        else Piece(f"[PAD{number}]", last, UNUSED)
        for number in range(vocabulary)
    ]


def _of_spaced(tree: Mapping[str, Any], pieces: list[Piece]) -> dict[str, Any]:
    normalizers = _flat(tree["normalizer"], "normalizers")
    splitters = _flat(tree["pre_tokenizer"], "pretokenizers")
    kinds = [part["type"] for part in (*normalizers, *splitters)]
    if kinds not in (["Prepend", "Replace"], ["Replace"], ["Metaspace"]) or (splitters and splitters[0]["split"]):
        raise ConfigError(
            f"a GGUF file has no place for this tokenizer's way with spaces: {', '.join(kinds) or 'none'}"
        )
    prefix = kinds[0] == "Prepend" if normalizers else splitters[0]["prepend_scheme"] != "never"
    return {
        "model": "llama",
        "pre": "default",
        "scores": [piece.score for piece in pieces],
        "add_space_prefix": prefix,
    }


def _of_byte_level(tree: Mapping[str, Any]) -> dict[str, Any]:
    model = tree["model"]
    words = Words(_bare(tree["pre_tokenizer"]), tree["normalizer"], bool(model.get("ignore_merges")))
    for name, known in WORDS.items():
        if (known.splitter, known.normalizer, known.whole) == (words.splitter, words.normalizer, words.whole):
            return {"model": "gpt2", "pre": name, "merges": [" ".join(pair) for pair in model["merges"]]}
    raise ConfigError(
        f"a GGUF file only names how texts are cut into words, and this tokenizer's way is none of {', '.join(WORDS)}"
    )


def _flat(part: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def _bare(splitter: Mapping[str, Any] | None) -> dict[str, Any]:
    """A pre-tokenizer without what decides nothing about tokens."""
    if splitter is None:
        return {}
    if splitter["type"] == "Sequence":
        return {**splitter, "pretokenizers": [_bare(inner) for inner in splitter["pretokenizers"]]}
    return {key: value for key, value in splitter.items() if key != "trim_offsets"}


def _end(processor: Mapping[str, Any] | None, at: int) -> str | None:
    """The special token that a text is begun (0) or ended (-1) with."""
    for part in _flat(processor, "processors"):
        if part["type"] == "TemplateProcessing" and "SpecialToken" in part["single"][at]:
            return part["single"][at]["SpecialToken"]["id"]
    return None


def _proven(theirs: list[list[str]], made: Mapping[str, Any]) -> None:
    """What was written, read again, makes the same merges: scores cannot express every list of them."""
    ours = json.loads(tokenizer_of(made, "the written tokenizer") or "null")["model"]["merges"]
    if [left + right for left, right in ours] != [left + right for left, right in theirs] or {*map(tuple, ours)} != {
        *map(tuple, theirs)
    }:
        raise ConfigError("a GGUF file keeps scores and no merges, and no scores make this tokenizer's merges")
