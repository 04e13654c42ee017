"""A trained model as it lies on the disk, whoever wrote it: its declaration, its weights under our names, its texts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from anyformer.checkpoints.files import Weights, read_json
from anyformer.checkpoints.foreign import Foreign
from anyformer.checkpoints.gguf_models import read_gguf
from anyformer.checkpoints.llama2c import read_llama2c
from anyformer.checkpoints.mingpt import read_mingpt
from anyformer.core.build import blank_model
from anyformer.core.errors import InputError
from anyformer.core.roles import AnyModel
from anyformer.core.spec import ModelSpec, from_dict
from anyformer.data.chat import ChatTemplate
from anyformer.data.corpus import Tokenizers
from anyformer.data.tokenizer import Roles, TextTokenizer
from anyformer.models.hub import located
from anyformer.models.published import CONFIG, declared, open_published, own_form
from anyformer.models.sentences import declared_sentences, modules, sentence_tensors
from anyformer.models.texts import of_folder, text_side
from anyformer.runs.folder import CHAT_TEMPLATE, SOURCE_TOKENIZER, RunFolder
from anyformer.runs.manifest import NAME as MANIFEST
from anyformer.runs.weights import nonfinite

# Single files of other programs, by what their names end in.
FILES: dict[str, Callable[[Path], Foreign]] = {".gguf": read_gguf, ".bin": read_llama2c, ".json": read_mingpt}


@dataclass(frozen=True)
class Checkpoint:
    """where: for messages. notes: what a user should be told."""

    spec: ModelSpec
    tensors: Mapping[str, Tensor]
    tokenizers: Tokenizers | None
    where: str
    notes: list[str] = field(default_factory=list)


def is_run(path: str | Path) -> bool:
    """Whether there is one of our own runs."""
    return (Path(path) / MANIFEST).exists()


def open_checkpoint(
    path: str | Path, *, best: bool = False, allow: Collection[str] = (), dtype: torch.dtype | None = None
) -> Checkpoint:
    """What is at a path: a run folder, or a folder as others publish theirs, which may be named as on the hub.

    Its weights fit its declaration. best: the weights of a run that did best on held-out text. allow: keys and tensors
    of a published folder to go on without. dtype: of its weights; None: that of the file, bfloat16 of quantised ones.
    """
    path = located(path)
    if is_run(path):
        return _of_run(path, best)
    if best:
        raise InputError(f"{path} is a published checkpoint, with one set of weights: leave out --best")
    if (path / CONFIG).is_file():
        return _of_published(open_published(path), path, allow, dtype)
    if path.suffix in FILES and path.is_file():
        return _of_published(FILES[path.suffix](path), path, allow, dtype)
    raise InputError(
        f"{path} is neither a run folder nor a published checkpoint: no {MANIFEST}, no {CONFIG}, no GGUF file"
    )


def declaration(path: str | Path) -> ModelSpec:
    """What a checkpoint declares, without its weights."""
    path = located(path)
    if not is_run(path) and (path / CONFIG).is_file():
        return declared_sentences(declared(read_json(path / CONFIG), str(path / CONFIG)), path)
    return from_dict(AnyModel, RunFolder.open(path).spec)


def _of_run(path: Path, best: bool) -> Checkpoint:
    with RunFolder.open(path) as run:
        spec: ModelSpec = from_dict(AnyModel, run.spec)
        tensors = run.weights(best)
        fits(spec, tensors, str(path))
        return Checkpoint(spec, tensors, tokenizers_of(run), str(path), run.notes)  # notes: weights that are no numbers


def _of_published(source: Foreign, path: Path, allow: Collection[str], dtype: torch.dtype | None) -> Checkpoint:
    spec, tensors = own_form(source, str(path), allow, dtype)
    if modules(path):
        spec, tensors = declared_sentences(spec, path, allow), sentence_tensors(path, tensors, spec.width)
    if source.tokenizer is not None:
        tokenizer = text_side(source.tokenizer, source.config, spec.vocabulary, str(path))
        if source.chat_template is not None:
            tokenizer = tokenizer.with_chat(ChatTemplate(source.chat_template, tokenizer.names, str(path)))
    else:
        tokenizer = of_folder(path, source.config, spec.vocabulary) if path.is_dir() else None
    notes = []
    for name, tensor in tensors.items():
        if count := nonfinite(tensor):
            notes.append(f"{path}: {name} has {count} values that are not finite")
        if isinstance(source.tensors, Weights):
            source.tensors.forget(tensor)  # of a table of words, a text needs few pages
    return Checkpoint(spec, tensors, None if tokenizer is None else Tokenizers(tokenizer), str(path), notes)


def tokenizers_of(run: RunFolder) -> Tokenizers | None:
    """The tokenizers that a run was trained with; None where it reads no text."""
    if run.tokenizer is None:
        return None
    source, roles = run.source_tokenizer, from_dict(Roles, run.info.get("roles", {}))
    target = TextTokenizer.read(run.tokenizer, str(run.path / "tokenizer.json"), roles)
    if (chat := run.chat_template) is not None:
        texts = from_dict(dict[str, str], run.info.get("special_texts", {}))
        target = target.with_chat(ChatTemplate(chat, texts, str(run.path / CHAT_TEMPLATE)))
    return Tokenizers(
        target,
        None if source is None else TextTokenizer.read(source, str(run.path / SOURCE_TOKENIZER)),
    )


def fits(spec: ModelSpec, tensors: Mapping[str, Tensor], source: str) -> None:
    """Every tensor has a place and every place a tensor, of its shape."""
    places = blank_model(spec, torch.float32).state_dict()
    missing, unknown = sorted(places.keys() - tensors.keys()), sorted(tensors.keys() - places.keys())
    other = [name for name in places.keys() & tensors.keys() if places[name].shape != tensors[name].shape]
    if missing or unknown or other:
        shapes = [f"{name} is {tuple(tensors[name].shape)}, not {tuple(places[name].shape)}" for name in sorted(other)]
        parts = [
            f"no tensor for {', '.join(missing[:4])}" if missing else "",
            f"no place for {', '.join(unknown[:4])}" if unknown else "",
            "; ".join(shapes[:4]),
        ]
        raise InputError(f"the weights in {source} do not fit its declaration: {'; '.join(p for p in parts if p)}")
