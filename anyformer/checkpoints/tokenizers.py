"""The tokenizer of a published folder, in whichever form it is there, as the text of a `tokenizer.json`.

In this order: `tokenizer.json`; a SentencePiece model; `vocab.json` with `merges.txt`; `vocab.txt`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyformer.checkpoints.files import read_json
from anyformer.checkpoints.pieces import framed
from anyformer.core.errors import InputError
from anyformer.core.explain import came

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WHOLE = "tokenizer.json"
SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.model")
SETTINGS = "tokenizer_config.json"

# Classes that number tokens as their SentencePiece model does; others move the numbers, each in its own way.
SAME_NUMBERS = (None, "PreTrained", "Llama", "CodeLlama", "Gemma", "T5", "MT5")
# Classes that put tokens before and after a text, unless their settings say otherwise.
BEGUN = ("Llama", "CodeLlama", "Gemma", "Roberta", "Bart", "Longformer", "Bert", "DistilBert", "Electra", "MPNet")
ENDED = ("T5", "MT5", "Roberta", "Bart", "Longformer", "Bert", "DistilBert", "Electra", "MPNet")
ENDS = {"bos": ("[CLS]", "<s>", "<bos>"), "eos": ("[SEP]", "</s>", "<eos>")}
# a setting, where it stands in a definition, and under which name
SPLITTING = {
    "do_lower_case": ("normalizer", "lowercase"),
    "strip_accents": ("normalizer", "strip_accents"),
    "tokenize_chinese_chars": ("normalizer", "handle_chinese_chars"),
    "add_prefix_space": ("pre_tokenizer", "add_prefix_space"),
}


def definition(folder: Path) -> str | None:
    """The text of a `tokenizer.json`; None where the folder has no tokenizer."""
    from anyformer.data.tokenizer import TextTokenizer

    if (folder / WHOLE).is_file():
        return TextTokenizer.load(folder / WHOLE).definition
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    for name in SENTENCEPIECE:
        if (folder / name).is_file():
            return _of_sentencepiece(folder / name, settings).to_str()
    if all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        return _of_lists(folder, settings, "GPT2").to_str()
    if (folder / "vocab.txt").is_file():
        return _of_lists(folder, settings, "Bert").to_str()
    return None


def _of_sentencepiece(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    from anyformer.checkpoints.sentencepiece import backend_of, read_sentencepiece
    from anyformer.data.guard import guarded

    where, kind = str(path.parent / SETTINGS), _class(settings)
    if kind not in SAME_NUMBERS:
        raise InputError(
            f"{where}: a tokenizer of class {kind!r:.60} numbers its tokens in a way of its own: save it as {WHOLE} "
            "first, with transformers' save_pretrained"
        )
    backend = backend_of(read_sentencepiece(path), str(path))
    with guarded(where):
        if kind == "T5":
            _add_blanks(backend, settings, where)
        _add(backend, settings, where)
        return _framed(backend, settings, kind, where)


def _of_lists(folder: Path, settings: Mapping[str, Any], usual: str) -> Tokenizer:
    """GPT-2's or BERT's files. usual: the class where the settings name none."""
    from tokenizers import Tokenizer

    from anyformer.data.guard import guarded
    from anyformer.data.tokenizers.file import File

    where = str(folder / SETTINGS)
    tree = json.loads(File(path=str(folder.resolve())).existing().definition)
    for setting, (part, key) in SPLITTING.items():
        value = settings.get(setting)
        if value is not None and key in (tree[part] or {}):
            if type(value) is not bool:
                raise InputError(f"{where}: {setting} should be true or false; came {came(value)}")
            tree[part][key] = value
    with guarded(where):
        backend = Tokenizer.from_str(json.dumps(tree))
        _add(backend, settings, where)
        return _framed(backend, settings, _class(settings) or usual, where)


def _class(settings: Mapping[str, Any]) -> str | None:
    """Llama of LlamaTokenizerFast."""
    name = settings.get("tokenizer_class")
    return name.removesuffix("Fast").removesuffix("Tokenizer") if isinstance(name, str) else None


def _framed(backend: Tokenizer, settings: Mapping[str, Any], kind: str | None, where: str) -> Tokenizer:
    first = _end(backend, settings, "bos", kind in BEGUN, where)
    return framed(backend, first, _end(backend, settings, "eos", kind in ENDED, where))


def _add(backend: Tokenizer, settings: Mapping[str, Any], where: str) -> None:
    """Tokens that are not in the model's own file; each has its number."""
    from tokenizers import AddedToken

    table = settings.get("added_tokens_decoder", {})
    if not isinstance(table, dict) or not all(number.isdecimal() and len(number) < 9 for number in table):
        raise InputError(f"{where}: added_tokens_decoder should be a table of tokens by their numbers")
    for number, token in sorted((int(number), token) for number, token in table.items()):
        match token:
            case {"content": str(text)} if text:
                special = token.get("special") is True
            case _:
                raise InputError(
                    f"{where}: added token {number} should be a table with its content; came {came(token)}"
                )
        backend.add_tokens([AddedToken(text, normalized=token.get("normalized") is True, special=special)])
        if backend.token_to_id(text) != number:
            raise InputError(
                f"{where}: added token {text[:40]!r} should be {number}, but is {backend.token_to_id(text)}"
            )


def _add_blanks(backend: Tokenizer, settings: Mapping[str, Any], where: str) -> None:
    """T5's blanks, which its file lacks: <extra_id_0> is the last token."""
    count = settings.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= 10_000:
        raise InputError(f"{where}: extra_ids should be a whole number up to 10000; came {came(count)}")
    if backend.token_to_id("<extra_id_0>") is None:
        backend.add_special_tokens([f"<extra_id_{number}>" for number in reversed(range(count))])


def _end(backend: Tokenizer, settings: Mapping[str, Any], end: str, usual: bool, where: str) -> str | None:
    """The token that a text begins or ends with, if it is put there."""
    wanted = settings.get(f"add_{end}_token", usual)
    if type(wanted) is not bool:
        raise InputError(f"{where}: add_{end}_token should be true or false; came {came(wanted)}")
    if not wanted:
        return None
    token = settings.get({"bos": "cls_token", "eos": "sep_token"}[end]) or settings.get(f"{end}_token")
    if isinstance(token, dict):
        token = token.get("content")
    known = [text for text in (ENDS[end] if token is None else (token,)) if isinstance(text, str)]
    found = next((text for text in known if backend.token_to_id(text) is not None), None)
    if found is None:
        raise InputError(f"{where}: texts should have an {end} token, but {' or '.join(known) or 'that'} is no token")
    return found
