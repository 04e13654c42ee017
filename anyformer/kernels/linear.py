"""Causal linear attention in chunks: the sums are carried from chunk to chunk, within a chunk a small square is made.

The same as `attention/linear.py`'s plain form, in O(T (L + D) D) time with L x L temporaries that stay in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64


def chunked(q: Tensor, k: Tensor, v: Tensor, start: Tensor, S: Tensor, z: Tensor, text: Tensor, chunk: int = CHUNK):
    """q, k (B, H, T, D) after the feature map, v (B, H, T, E), start (B, T); the sums S (B, H, D, E), z (B, H, D) of
    the text that began at `text` (B,).

    Returns numerators (B, H, T, E), denominators (B, H, T), and S, z, text after the last token.
    """
    tops, bottoms = [], []
    # split, never slice: the gradient of a slice is a tensor of the full length
    for qc, kc, vc, sc in zip(
        q.split(chunk, 2), k.split(chunk, 2), v.split(chunk, 2), start.split(chunk, 1), strict=True
    ):
        same = (sc[:, :, None] == sc[:, None, :]).tril()[:, None]  # (B, 1, L, L)
        weights = (qc @ kc.transpose(2, 3)) * same
        carried = (sc == text[:, None])[:, None, :, None].to(qc.dtype)
        old = qc * carried
        tops.append(weights @ vc + old @ S)
        bottoms.append(weights.sum(-1) + torch.einsum("bhtd,bhd->bht", old, z))
        last = torch.maximum(sc.amax(1), text)  # padding has no text
        keep = (last == text)[:, None, None].to(S.dtype)
        new = kc * (sc == last[:, None])[:, None, :, None]
        S = S * keep[..., None] + new.transpose(2, 3) @ vc
        z = z * keep + new.sum(2)
        text = last
    return torch.cat(tops, 2), torch.cat(bottoms, 2), S, z, text
