"""What a call of a model may say beside its ids, checked on the host before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from anyformer.core.context import Source
from anyformer.core.modality import Modality, placed
from anyformer.core.spec import ModelSpec
from anyformer.core.state import State
from anyformer.core.tape import Tape


class Given(TypedDict, total=False):
    """What a call may say beside ids (B, T), or beside what enters in their place and makes T vectors a row.

    lengths: (B,) real tokens a row, the padding at the `side` "right" or "left"; or real: (B, T), padding anywhere.
    labels: name -> (B, T). coords: (B, T, R). sources: what cross attention reads. checkpoint: recompute each block in
    the backward pass.
    """

    lengths: Tensor | None
    side: Literal["left", "right"]
    real: Tensor | None
    labels: Mapping[str, Tensor] | None
    coords: Tensor | None
    sources: Mapping[str, Source] | None
    tape: Tape | None
    checkpoint: bool


def checked(
    ids: Tensor,
    spec: ModelSpec,
    embedding: nn.Module,
    *,
    lengths: Tensor | None = None,
    side: str = "right",
    real: Tensor | None = None,
    labels: Mapping[str, Tensor] | None = None,
    coords: Tensor | None = None,
    sources: Mapping[str, Source] | None = None,
    tape: Tape | None = None,
    checkpoint: bool = False,
) -> dict[str, Any]:
    """What `step` needs of what was given; what was not given is left out, so that compiled steps are few."""
    check_entry(ids, embedding, spec.vocabulary, padded=lengths is not None or real is not None)
    places, _ = placed(ids, embedding, None)
    located = coords is None and isinstance(embedding, Modality)  # which says itself where its vectors are
    call = {
        "real": real_tokens(places, lengths, side, real),
        "labels": all_labels(places, labels, spec.labels) or None,
        "coords": None if located else all_coords(places, coords, spec.rank),
        "sources": sources or None,
        "tape": tape,
        "checkpoint": checkpoint or None,
    }
    return {name: value for name, value in call.items() if value is not None}


def check_entry(x: Tensor, embedding: nn.Module, vocabulary: int | None, padded: bool) -> None:
    """Refuse what the embedding cannot take. padded: whether the call says where there is padding."""
    if not isinstance(embedding, Modality):
        check_ids(x, vocabulary)
    elif padded:
        raise ValueError(
            f"{embedding.path}: every row makes as many vectors, and none is padding; leave out lengths and real"
        )


def check_ids(ids: Tensor, vocabulary: int | None) -> None:
    """Refuse what the embedding cannot look up; ids on a device are not read, since that would wait for it."""
    if ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"ids must be whole numbers (B, T), int64 or int32; came {ids.dtype} {tuple(ids.shape)}")
    if not ids.numel():
        raise ValueError(f"a call needs at least one row and one token; came ids {tuple(ids.shape)}")
    if vocabulary is None or ids.device.type != "cpu" or torch.compiler.is_compiling():
        return
    least, most = ids.aminmax()
    if least < 0 or most >= vocabulary:
        row, place = ((ids < 0) | (ids >= vocabulary)).nonzero()[0].tolist()
        raise ValueError(
            f"id {int(ids[row, place])} at row {row}, place {place}: the vocabulary has the ids 0 to "
            f"{vocabulary - 1}; padding takes any of them"
        )


def real_tokens(ids: Tensor, lengths: Tensor | None, side: str, real: Tensor | None) -> Tensor | None:
    """(B, T) where there is a token, or None where all are."""
    if lengths is not None and real is not None:
        raise ValueError("give either lengths (B,) or real (B, T), not both")
    if real is not None and (real.shape != ids.shape or real.dtype != torch.bool):
        raise ValueError(f"real must be true or false {tuple(ids.shape)}; came {real.dtype} {tuple(real.shape)}")
    if lengths is None:
        return real
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right'; came {side!r}")
    lengths = torch.as_tensor(lengths, device=ids.device)
    if lengths.shape != ids.shape[:1] or bool(((lengths < 0) | (lengths > ids.shape[1])).any()):
        raise ValueError(f"lengths must be {ids.shape[0]} numbers from 0 to {ids.shape[1]}; came {lengths.tolist()}")
    place = torch.arange(ids.shape[1], device=ids.device)
    first = ids.shape[1] - lengths if side == "left" else torch.zeros_like(lengths)
    return (place >= first[:, None]) & (place < (first + lengths)[:, None])


def all_labels(ids: Tensor, given: Mapping[str, Tensor] | None, declared: tuple[str, ...]) -> dict[str, Tensor]:
    """Every label that the model declares; one that was not given is 0 everywhere."""
    given = given or {}
    if unknown := set(given) - set(declared):
        raise ValueError(f"unknown labels {sorted(unknown)}; the model declares {list(declared)}")
    if wrong := {name: tuple(label.shape) for name, label in given.items() if label.shape != ids.shape}:
        raise ValueError(f"labels must be {tuple(ids.shape)}, as ids are; came {wrong}")
    return {name: given.get(name, torch.zeros_like(ids)) for name in declared}


def all_coords(ids: Tensor, given: Tensor | None, rank: int) -> Tensor | None:
    """What was given; None only where the model has the one coordinate that it can make itself."""
    wanted = (*ids.shape, rank)
    if (given is None and rank > 1) or (given is not None and given.shape != wanted):
        came = "none" if given is None else tuple(given.shape)
        raise ValueError(f"the model declares {rank} coordinates a token: give coords {wanted}; came {came}")
    return given


def check_room(ids: Tensor, call: Mapping[str, Any], state: State) -> None:
    """Refuse what does not fit; the device's clock is read only where the host's upper bound is reached."""
    past, mark = state.past, state.mark
    real, prefix = call.get("real"), call.get("labels", {}).get("prefix")
    if ids.shape[0] != past.clock.shape[0]:
        raise ValueError(f"the state holds {past.clock.shape[0]} rows; the call has {ids.shape[0]}")
    if mark.capacity is not None and mark.count + ids.shape[1] > mark.capacity:
        mark.count = int(past.clock.amax())
        new = ids.shape[1] if real is None else real.sum(1)
        need = int((past.clock + new).amax())
        if need > mark.capacity:
            raise ValueError(f"the state holds {mark.capacity} tokens a row; this call needs {need}")
    marked = None if prefix is None else prefix > 0 if real is None else (prefix > 0) & real
    if marked is not None and bool((marked & (past.clock > 0)[:, None]).any()):
        raise ValueError("a prefix is seen from both sides and must come whole, in a state's first call")
