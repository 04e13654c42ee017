"""The model's one clock: where the tokens of a call are, given those before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.state import ModelPast


def clock(
    ids: Tensor,
    real: Tensor | None,
    labels: Mapping[str, Tensor],
    past: ModelPast | None,
    coords: Tensor | None,
) -> tuple[Where, ModelPast | None]:
    """Where these tokens are, and the clock after them."""
    batch, length = ids.shape[:2]
    now = torch.zeros(batch, dtype=torch.long, device=ids.device) if past is None else past.clock
    if real is None:
        time, after = now[:, None] + torch.arange(length, device=ids.device), now + length
    else:
        time, after = torch.where(real, now[:, None] + real.long().cumsum(1) - 1, -1), now + real.sum(1)
    names, texts = dict(labels), None if past is None else past.texts
    if "document" in names:
        names["start"], texts = text_starts(time, names["document"], past)
    where = Where(time, time[..., None], names)
    if coords is not None:
        where = replace(where, coords=coords)
    elif "start" in names:
        where = replace(where, coords=torch.where(where.real, where.offset, -1)[..., None])
    if past is None or texts is None:
        return where, None
    return where, ModelPast((), after, now, torch.maximum(past.high, after), texts)


def text_starts(time: Tensor, document: Tensor, past: ModelPast | None) -> tuple[Tensor, Tensor | None]:
    """The time at which each token's text began, (B, T), and the carried texts after them."""
    batch, length = time.shape
    real, place = time >= 0, torch.arange(length, device=time.device)
    last = torch.where(real, place, -1).cummax(1).values  # the latest real token up to here
    before = torch.cat([last.new_full((batch, 1), -1), last[:, :-1]], 1)
    carried = document.new_zeros(batch, 2)
    if past is not None:
        slot = (past.clock - 1).clamp(min=0) % past.texts.shape[1]
        carried = past.texts.gather(1, slot[:, None, None].expand(-1, 1, 2))[:, 0] * (past.clock > 0)[:, None]
    earlier = torch.where(before < 0, carried[:, :1], document.gather(1, before.clamp(min=0)))
    begins = real & ((document != earlier) | (time == 0))
    start = torch.maximum(torch.where(begins, time, -1).cummax(1).values, carried[:, 1:])
    if past is None:
        return start, None
    size = past.texts.shape[1]
    kept = real & (time >= time.amax(1, keepdim=True) - size + 1)  # one writer a slot
    slot = torch.where(kept, time % size, size)[..., None].expand(-1, -1, 2)
    texts = torch.cat([past.texts, past.texts[:, :1]], 1).scatter(1, slot, torch.stack([document, start], -1))
    return start, texts[:, :size]


def check_longest(where: Where, longest: int | None) -> None:
    """Refuse a text that is longer than the positions can tell apart."""
    if longest is None or not where.time.numel():
        return
    need = int(where.coords[..., 0].masked_fill(~where.real, -1).amax()) + 1
    if need > longest:
        raise ValueError(f"a text of {need} tokens; this model's positions end after {longest}")
