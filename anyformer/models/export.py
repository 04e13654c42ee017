"""A trained model out, as a folder that other programs read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from anyformer.checkpoints.config import Inexpressible
from anyformer.checkpoints.files import INDEX, SINGLE
from anyformer.checkpoints.foreign import Foreign
from anyformer.checkpoints.gguf_write import Type, write_gguf
from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.core.tables import table
from anyformer.data.tokenizer import TextTokenizer
from anyformer.models.published import CONFIG, PACKAGE, published
from anyformer.models.texts import GENERATION, TEMPLATE
from anyformer.runs.files import DISK, atomic_write, make_folder, remove_tree
from anyformer.runs.weights import tensor_chunks

SHARD = 5 * 10**9  # bytes of one file
METADATA = {"format": "pt"}  # what Hugging Face's readers ask for


def export_hf(model: Model, folder: Path, model_type: str | None = None) -> str:
    """Writes a folder that transformers reads, and says as which model type. Inexpressible names what has no key there.

    model_type: None: the first that can say all that the model is.
    """
    name, config, tensors = expressed(model, model_type)
    texts = model.tokenizer if isinstance(model.tokenizer, TextTokenizer) else None
    special = {} if texts is None else _special(texts, config)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    with new_folder(folder) as made:
        _write_json(made / CONFIG, {**config, **special, "dtype": dtype, "torch_dtype": dtype})
        shards = _shards(tensors)
        for file, part in shards.items():
            atomic_write(DISK, made / file, tensor_chunks(part, METADATA))
        if shards.keys() != {SINGLE}:
            where = {tensor: file for file, part in shards.items() for tensor in part}
            size = sum(tensor.nbytes for tensor in tensors.values())
            _write_json(made / INDEX, {"metadata": {"total_size": size}, "weight_map": where})
        if texts is not None:
            texts.save(made / "tokenizer.json")
            _write_json(made / "tokenizer_config.json", _tokenizer_config(texts, config))
            if texts.chat is not None:
                atomic_write(DISK, made / TEMPLATE, texts.chat.source.encode())
            if special:
                _write_json(made / GENERATION, special)
    return name


def export_gguf(model: Model, path: Path, kind: Type = "F32") -> str:
    """Writes a GGUF file, matrices as `kind`, and says of which model type. ConfigError: GGUF has no key for a part."""
    if path.exists():
        raise ConfigError(f"{path} exists: choose another name")
    name, config, tensors = expressed(model)
    texts = model.tokenizer if isinstance(model.tokenizer, TextTokenizer) else None
    special = {} if texts is None else _special(texts, config)
    definition, chat = (None, None) if texts is None else (texts.definition, texts.chat)
    source = None if chat is None else chat.source
    write_gguf(Foreign({**config, **special}, tensors, definition, source), path, kind)
    return name


def expressed(model: Model, model_type: str | None = None) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """A model type that says all of a model, its config, and its tensors."""
    if model_type is not None:
        return (model_type, *published(model, model_type))
    reasons: list[Inexpressible] = []
    for name in table(PACKAGE):
        try:
            return (name, *published(model, name))
        except Inexpressible as error:
            reasons.append(error)
    nearest = min(reasons, key=lambda reason: reason.count)
    raise Inexpressible(f"no published model type says this declaration; {nearest}", nearest.count)


def _special(texts: TextTokenizer, config: Mapping[str, Any]) -> dict[str, Any]:
    """The ids of special tokens, as configs have them; what a config says itself stays (RoBERTa counts from it)."""
    ends = sorted(texts.ends, key=lambda id: id != texts.end)
    found = {
        "bos_token_id": texts.begin,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": texts.pad,
    }
    said = {key: config.get(key) for key in found}
    return {key: value for key in found if (value := found[key] if said[key] is None else said[key]) is not None}


def _tokenizer_config(texts: TextTokenizer, config: Mapping[str, Any]) -> dict[str, Any]:
    known = texts.names if texts.chat is None else texts.chat.tokens  # a template may ask whether there is one
    longest = config.get("max_position_embeddings")
    return {"tokenizer_class": "PreTrainedTokenizerFast", **known, **({"model_max_length": longest} if longest else {})}


def _shards(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by the file that they go into."""
    parts: list[dict[str, Tensor]] = [{}]
    room = SHARD
    for name, tensor in tensors.items():
        if tensor.nbytes > room and parts[-1]:
            parts.append({})
            room = SHARD
        parts[-1][name] = tensor
        room -= tensor.nbytes
    if len(parts) == 1:
        return {SINGLE: parts[0]}
    return {f"model-{at:05}-of-{len(parts):05}.safetensors": part for at, part in enumerate(parts, 1)}


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    atomic_write(DISK, path, json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears when all of it is written, and not before; one that holds something is refused."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} exists and is not empty: choose another folder")
    partial = path.with_name(f".{path.name}.partial")
    if partial.exists():  # of a process that was killed
        remove_tree(DISK, partial)
    make_folder(DISK, partial)
    try:
        yield partial
    except BaseException:
        remove_tree(DISK, partial)
        raise
    if path.exists():
        path.rmdir()
    partial.rename(path)
