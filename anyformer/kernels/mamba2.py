"""Sums that fade (Dao & Gu 2024): linear attention in which every token first multiplies the past by a number.

S_t = exp(a_t) S_{t-1} + k_t v_tᵀ,  out_t = S_tᵀ q_t,  a_t <= 0

A token at a time, which is the definition; or in chunks, as the paper's section 6 does: within a chunk a small square
is made, between chunks S is carried. What lies between tokens s < t is exp of a difference of two running sums of a,
which is never positive: products of decays neither overflow nor divide by what has become 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def scan(q: Tensor, k: Tensor, v: Tensor, a: Tensor, start: Tensor, S: Tensor, text: Tensor):
    """q, k (B, G, T, D), v (B, H, T, E), a (B, H, T), start (B, T); S (B, H, D, E) of the text that began at `text`.

    Where there is no token, v and a are 0 and start is -1. Returns out (B, H, T, E), and S, text after the last token.
    """
    repeat = v.shape[1] // k.shape[1]
    q, k = q.repeat_interleave(repeat, 1), k.repeat_interleave(repeat, 1)
    outs = []
    for t in range(v.shape[2]):
        last = torch.maximum(start[:, t], text)
        kept = a[:, :, t].exp() * (last == text)[:, None]
        S = S * kept[..., None, None] + k[:, :, t, :, None] * v[:, :, t, None]
        outs.append((q[:, :, t, None] @ S)[:, :, 0])
        text = last
    return torch.stack(outs, 2), S, text


def chunked(q: Tensor, k: Tensor, v: Tensor, a: Tensor, start: Tensor, S: Tensor, text: Tensor, chunk: int):
    """The same in O(T (L + D) E) with L x L temporaries, L = chunk."""
    groups, outs = (k.shape[1], v.shape[1] // k.shape[1]), []
    S = S.unflatten(1, groups)
    # split, never slice: the gradient of a slice is a tensor of the full length
    for qc, kc, vc, ac, sc in zip(
        q[:, :, None].split(chunk, 3),
        k[:, :, None].split(chunk, 3),
        v.unflatten(1, groups).split(chunk, 3),
        a.unflatten(1, groups).split(chunk, 3),
        start.split(chunk, 1),
        strict=True,
    ):
        fall = ac.cumsum(3)  # (B, G, H/G, L)
        other = (sc[:, :, None] != sc[:, None, :]) | _later(sc)
        between = (fall[..., :, None] - fall[..., None, :]).masked_fill(other[:, None, None], -torch.inf)
        last = torch.maximum(sc.amax(1), text)  # padding has no text
        carried = fall.exp() * (sc == text[:, None])[:, None, None]
        outs.append(((qc @ kc.mT) * between.exp()) @ vc + (qc @ S) * carried[..., None])
        end = fall[..., -1:]
        left = (end - fall).exp() * (sc == last[:, None])[:, None, None]
        kept = end.exp() * (last == text)[:, None, None, None]
        S = S * kept[..., None] + kc.mT @ (vc * left[..., None])
        text = last
    return torch.cat(outs, 3).flatten(1, 2), S.flatten(1, 2), text


def _later(start: Tensor) -> Tensor:
    """(L, L): whether the second token comes after the first."""
    length = start.shape[1]
    return torch.ones(length, length, dtype=torch.bool, device=start.device).triu(1)
