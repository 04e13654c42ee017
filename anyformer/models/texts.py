"""The text side of a published checkpoint: its tokenizer, what its special tokens are for, its chat template."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from anyformer.checkpoints import tokenizers
from anyformer.checkpoints.files import read_json
from anyformer.core.errors import InputError
from anyformer.core.explain import came
from anyformer.data.chat import ChatTemplate, read_template
from anyformer.data.guard import guarded
from anyformer.data.tokenizer import Roles, TextTokenizer

GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"


def of_folder(folder: Path, config: Mapping[str, Any], vocabulary: int | None) -> TextTokenizer | None:
    """The tokenizer of a folder; None where there is none. vocabulary: rows of the model's table."""
    found = tokenizers.definition(folder)
    more = read_json(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    if found is None:
        return None
    tokenizer = text_side(found, {**config, **more}, vocabulary, str(folder))
    return tokenizer.with_chat(chat_of(folder, tokenizer))


def chat_of(folder: Path, tokenizer: TextTokenizer) -> ChatTemplate | None:
    """The chat template of a folder: a file of its own, or what the tokenizer's settings hold."""
    path, where = folder / TEMPLATE, folder / tokenizers.SETTINGS
    settings = read_json(where) if where.is_file() else {}
    source = read_template(path) if path.is_file() else settings.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default", source)
    if source is None:
        return None
    if not isinstance(source, str):
        raise InputError(f"{where}: chat_template should be text, or a list with a default; came {came(source)}")
    return ChatTemplate(source, special_texts(settings) or tokenizer.names, str(path if path.is_file() else where))


def special_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """What a tokenizer's settings call bos_token, eos_token and so on."""
    found = {}
    for name, value in settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def text_info(texts: TextTokenizer) -> dict[str, Any]:
    """What a run writes of a text side beside its files."""
    roles = {key: value for key, value in dataclasses.asdict(texts.roles).items() if value is not None}
    return {"roles": roles} if texts.chat is None else {"roles": roles, "special_texts": dict(texts.chat.tokens)}


def text_side(definition: str, config: Mapping[str, Any], vocabulary: int | None, where: str) -> TextTokenizer:
    """A tokenizer from the text of its `tokenizer.json`. vocabulary: rows of the model's table."""
    with guarded(where):
        backend = Tokenizer.from_str(definition)
        around = frame(backend)
    tokenizer = TextTokenizer(backend, roles(config, around, where))
    if vocabulary is not None and tokenizer.vocabulary > vocabulary:
        raise InputError(
            f"{where}: has {tokenizer.vocabulary} tokens, the model's table {vocabulary} rows: they are not a pair"
        )
    return tokenizer


def roles(config: Mapping[str, Any], around: tuple[tuple[int, ...], tuple[int, ...]], where: str) -> Roles:
    """What a config, and what the tokenizer puts around a text, say of special tokens."""

    def ids(key: str) -> tuple[int, ...]:
        value = config.get(key)
        some = tuple(value) if isinstance(value, list) else () if value is None else (value,)
        if not all(type(id) is int and id >= -1 for id in some):
            raise InputError(f"{where}: {key} should be a token's number, or a list of them; came {came(value)}")
        return tuple(id for id in some if id >= 0)

    begin = ids("decoder_start_token_id") or ids("bos_token_id")
    return Roles(next(iter(begin), None), ids("eos_token_id"), next(iter(ids("pad_token_id")), None), *around)


def frame(backend: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that a tokenizer puts before and after every text."""
    backend.no_truncation()
    backend.no_padding()
    whole, plain = (backend.encode("a", add_special_tokens=special).ids for special in (True, False))
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return tuple(whole[:at]), tuple(whole[at + len(plain) :])
    return (), ()
