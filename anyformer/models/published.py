"""A published folder in, a model out; and back: a folder that other programs read.

Every key of the config is understood or refused, every tensor has a place and every parameter a tensor. Weights stay on
the pages of their files until they are written to, so that loading costs neither time nor a second copy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import Tensor

from anyformer.checkpoints.files import Weights, read_json
from anyformer.checkpoints.foreign import Foreign
from anyformer.checkpoints.names import Names, links, says_nothing
from anyformer.checkpoints.quantised import dequantised, told
from anyformer.core.build import blank_model
from anyformer.core.errors import InputError
from anyformer.core.explain import explain
from anyformer.core.model import Model
from anyformer.core.spec import ModelSpec
from anyformer.core.tables import nearest, row, table
from anyformer.models.base import ModelType, is_bare
from anyformer.models.head import answered
from anyformer.models.surgery import operate

CONFIG = "config.json"
PACKAGE = "anyformer.models"


def model_type(name: object, where: str) -> ModelType:
    """The row of a `model_type`."""
    rows = table(PACKAGE)
    if not isinstance(name, str) or name not in rows:
        near = nearest(name, rows) if isinstance(name, str) else ""
        raise InputError(f"{where}: model_type {name!r} is not known; known: {', '.join(sorted(rows))}{near}")
    return cast(ModelType, row(PACKAGE, name)())


def declared(config: Mapping[str, Any], where: str, allow: Collection[str] = ()) -> ModelSpec:
    """The spec of a published config, which can be built."""
    return _built(config, where, allow)[0]


def with_type(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A config with its model_type, which the files of Mamba-2's authors leave out."""
    if "model_type" in config or "ssm_cfg" not in config:
        return config
    from anyformer.models.mamba2 import official  # a row, which is imported when it is used

    return official(config, where)


def _built(config: Mapping[str, Any], where: str, allow: Collection[str]) -> tuple[ModelSpec, Model]:
    """That, and the model, which has no values yet."""
    config = with_type(config, where)
    plain, _ = told(config, where, allow)
    try:
        spec = model_type(config.get("model_type"), where).read(plain, where, allow)
        return spec, blank_model(spec, torch.float32)
    except InputError:
        raise
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error)}") from error
    except ValueError as error:  # sizes that do not fit together
        raise InputError(f"{where}: {error}") from error


def tensors_for(
    source: Foreign,
    where: str,
    spec: ModelSpec,
    parameters: Mapping[str, Tensor],
    allow: Collection[str] = (),
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """What a file's tensors are as the parameters of a spec: on the file's pages, or copied, and the pages let go.

    parameters: those of the model that the file's config declares, of which only the shapes are read. allow: tensors to
    go on without. dtype: None: that of the file.
    """
    kind = model_type(source.config.get("model_type"), where)
    theirs = _with_prefix(source.tensors, kind)
    names = answered(spec, kind.names(spec))
    found, used = {}, set()
    for link in links(names, parameters):
        if link.theirs not in theirs:
            continue
        used.add(link.theirs)
        shapes = [tuple(parameters[name].shape) for name in link.ours]
        tensor = source.tensors[theirs[link.theirs]]
        try:
            parts = link.rule.split(tensor, shapes)
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"{where}: {theirs[link.theirs]} has the shape {tuple(tensor.shape)}, from which "
                f"{' and '.join(map('{} {}'.format, link.ours, shapes))} cannot be made: "
                f"{str(error).splitlines()[0]}"
            ) from None
        parts = [_settled(part if dtype is None else part.to(dtype)) for part in parts]
        if isinstance(source.tensors, Weights) and not any(_shares(part, tensor) for part in parts):
            source.tensors.forget(tensor)
        found.update(zip(link.ours, parts, strict=True))
    for copy, owner in kind.ties.items():
        if copy in theirs and copy not in used and owner in found:
            if not torch.equal(source.tensors[theirs[copy]].to(found[owner].dtype), found[owner]):
                raise InputError(
                    f"{where}: the config ties {copy} to {owner}, but the file has another tensor for it: set "
                    "tie_word_embeddings to false in config.json"
                )
            used.add(copy)
    _check(where, names, theirs, used, found, parameters, allow)
    return found


def _settled(tensor: Tensor) -> Tensor:
    """Copied, unless it lies as products read it: by rows, or as a whole matrix that is turned (GPT-2's files)."""
    return tensor if tensor.dim() == 2 and tensor.mT.is_contiguous() else tensor.contiguous()


def _shares(part: Tensor, whole: Tensor) -> bool:
    return part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def _with_prefix(tensors: Mapping[str, Tensor], kind: ModelType) -> dict[str, str]:
    """The names of the table -> those of the file, which lack the prefix where a bare model was saved."""
    bare = bool(kind.prefix) and not any(name.startswith(kind.prefix) for name in tensors)
    return {f"{kind.prefix if bare else ''}{kind.newer(name)}": name for name in tensors}


def _check(
    where: str,
    names: Names,
    theirs: Mapping[str, str],
    used: Collection[str],
    found: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    allow: Collection[str],
) -> None:
    """Nothing is missing, nothing is left, and every shape fits."""
    left = [file for name, file in theirs.items() if name not in used and not says_nothing(names, name)]
    missing, left = sorted(parameters.keys() - found.keys()), sorted(name for name in left if name not in allow)
    odd = [name for name in found if found[name].shape != parameters[name].shape]
    if missing or left or odd:
        parts = [
            f"no tensor for {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}" if missing else "",
            f"no place for {', '.join(left[:4])}{' …' if len(left) > 4 else ''} (--allow goes on without)"
            if left
            else "",
            *(f"{name} is {tuple(found[name].shape)}, not {tuple(parameters[name].shape)}" for name in odd[:4]),
        ]
        raise InputError(f"{where}: the weights do not fit the config: {'; '.join(filter(None, parts))}")


def own_form(
    source: Foreign, where: str, allow: Collection[str] = (), dtype: torch.dtype | None = None
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """The spec of a published checkpoint, and its tensors under our names.

    dtype: of the tensors; None: that of the file, and bfloat16 where they are quantised, as their plain neighbours
    usually are.
    """
    source = replace(source, config=with_type(source.config, f"{where}: {CONFIG}"))
    reasons = []
    for config in _classed(source, where):
        try:
            return _own_form(replace(source, config=config), where, allow, dtype)
        except InputError as error:
            reasons.append(error)
    raise reasons[0]


def _classed(source: Foreign, where: str) -> list[Mapping[str, Any]]:
    """The config, and where it may name another class than that of the model that was saved, with those as well.

    It may where it names none, and where the tensors are a bare model's (all-mpnet-base-v2 names one with a head).
    """
    kind, named = model_type(source.config.get("model_type"), where), source.config.get("architectures")
    bare = kind.prefix and not any(name.startswith(kind.prefix) for name in source.tensors)
    others = [name for name in kind.classes if not named or (bare and is_bare(name) and [name] != named)]
    return [source.config, *({**source.config, "architectures": [name]} for name in others)]


def _own_form(
    source: Foreign, where: str, allow: Collection[str], dtype: torch.dtype | None
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """The same, of the class that the config names."""
    kind = model_type(source.config.get("model_type"), where)
    said, blank = _built(source.config, f"{where}: {CONFIG}", allow)
    source = dequantised(source, where, dtype or torch.bfloat16, allow)
    spec = kind.fitted(said, _with_prefix(source.tensors, kind))
    if spec != said:
        blank = blank_model(spec, torch.float32)
    return spec, tensors_for(source, where, spec, blank.state_dict(), allow, dtype)


def load_published(
    source: Foreign, where: str, *, dtype: torch.dtype | None = None, allow: Collection[str] = ()
) -> Model:
    """The model of a published checkpoint, as it was published."""
    spec, tensors = own_form(source, where, allow, dtype)
    return operate(spec, tensors, dtype or common_dtype(tensors, where))[0].eval()


def common_dtype(tensors: Mapping[str, Tensor], where: str) -> torch.dtype:
    """The one dtype of all weights."""
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    if len(kinds) > 1:
        raise InputError(
            f"{where}: the weights are {' and '.join(kinds)}; say in which to compute, such as --dtype float32"
        )
    dtype = getattr(torch, kinds[0])
    if not dtype.is_floating_point or dtype.itemsize < 2:
        raise InputError(
            f"{where}: the weights are {kinds[0]}; they should be floating-point numbers of 16 bits or more"
        )
    return dtype


def published(model: Model, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors of a model as files of a `model_type` have them; Inexpressible says what has none."""
    kind = model_type(name, "--type")
    config, parameters = kind.write(name, model.spec), model.state_dict()
    made, used = {}, set()
    for link in links(answered(model.spec, kind.names(model.spec)), parameters):
        made[link.theirs] = link.rule.join([parameters[ours].detach() for ours in link.ours]).contiguous()
        used.update(link.ours)
    assert used == parameters.keys(), f"no names for {sorted(parameters.keys() - used)}"  # a table that is not whole
    if is_bare(config["architectures"][0]):
        made = {theirs.removeprefix(kind.prefix): tensor for theirs, tensor in made.items()}
    return config, made


def open_published(folder: Path) -> Foreign:
    """A folder's config and its mapped tensors."""
    return Foreign(read_json(folder / CONFIG), Weights.open(folder))
