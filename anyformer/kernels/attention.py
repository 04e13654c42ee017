"""The one contract of attention: disjoint regions of keys, each giving an output and its log-sum-exp, merged.

    s_ij = cap(scale q_i . k_j) + scores_ij where i sees j;  out_i = sum_j w_ij v_j + adds(w_i),  w_ij = softmax_j(s_ij)
    lse_i = log sum_j exp s_ij;  cap(s) = softcap tanh(s / softcap) (Gemma 2), s itself without a softcap
    merged: out_i = sum_r exp(lse_i^r - lse_i) out_i^r,  lse_i = log sum_r exp lse_i^r
    a sink (gpt-oss) is a region with lse_i = its score, out_i = 0

Who is not seen gets the dtype's least finite number, never -inf, and values of padding are zero. A query that
sees nothing gets zeros and has finite gradients. Grouped heads (G < H): head h reads key-value head floor(h G / H).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.context import Where
from anyformer.patterns.base import Pattern
from anyformer.patterns.causal import Causal
from anyformer.patterns.full import Full


@dataclass(frozen=True)
class Region:
    """Queries and the keys of one region. Shapes: q (B, T, H, D), k and v (B, S, G, D), scores (B or 1, H, T, S).

    straight: both sides are the times 0 … T-1 of unpadded rows, so that a fast form need not look.
    adds: what the weights (B, H, T, S), float32 or finer, give beside the sum of the values, (B, T, H, D); linear in
    them, so that regions can be merged.
    sink: (H,), the score of one more key, which all queries see and which has no value. Of several regions one has it.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_where: Where
    k_where: Where
    pattern: Pattern
    scale: float
    scores: Tensor | None = None
    straight: bool = False
    softcap: float | None = None
    adds: Callable[[Tensor], Tensor] | None = None
    sink: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """(B, T, S): whether query t sees key s."""
        return self.pattern.sees(self.q_where.queries, self.k_where.keys) & self.k_where.real[:, None]


def attend(regions: Sequence[Region], dropout: float = 0.0) -> Tensor:
    """(B, T, H, D): one softmax over all regions."""
    if len(regions) == 1:
        return fused(regions[0], dropout)
    return merge([plain(region, dropout=dropout) for region in regions])[0]


def plain(
    region: Region, change: Callable[[Tensor], Tensor] = lambda weights: weights, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The definition: out (B, T, H, D) and lse (B, H, T). `change` sees the weights (B, H, T, S)."""
    q, k, v = region.q, region.k, region.v
    batch, length, heads, _ = q.shape
    groups = k.shape[2]
    grouped = q.unflatten(2, (groups, heads // groups))
    scores = torch.einsum("btgrd,bsgd->bgrts", grouped, k).flatten(1, 2) * region.scale  # (B, H, T, S)
    scores = scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
    if region.softcap is not None:
        scores = (scores / region.softcap).tanh() * region.softcap
    if region.scores is not None:
        scores = scores + region.scores
    seen = region.seen[:, None]
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    lse, weights = scores.logsumexp(-1), scores.softmax(-1).masked_fill(~seen.any(-1, keepdim=True), 0)
    if region.sink is not None:
        sink = region.sink.to(lse.dtype)[:, None]
        weights, lse = weights * (lse - sink).sigmoid()[..., None], torch.logaddexp(lse, sink)
    weights = change(weights)
    weights = F.dropout(weights, dropout)
    shares = weights.to(v.dtype).unflatten(1, (groups, heads // groups))
    out = torch.einsum("bgrts,bsgd->btgrd", shares, _zeroed(region)).reshape(batch, length, heads, -1)
    return out if region.adds is None else out + region.adds(weights).to(out.dtype), lse


def merge(results: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One softmax out of several over disjoint keys."""
    lse = torch.stack([lse for _, lse in results])  # (regions, B, H, T)
    total = lse.logsumexp(0)
    shares = (lse - total).exp().transpose(2, 3)[..., None]  # (regions, B, T, H, 1)
    out = torch.stack([out for out, _ in results])
    return (shares.to(out.dtype) * out).sum(0), total


def fused(region: Region, dropout: float = 0.0) -> Tensor:
    """`scaled_dot_product_attention`: the same (B, T, H, D) without T x S weights; plain for terms that it lacks."""
    if region.softcap is not None or region.adds is not None:
        return plain(region, dropout=dropout)[0]
    q, k, v = region.q.transpose(1, 2), region.k.transpose(1, 2), region.v
    causal, mask, blind = False, None, None
    simple = region.straight and region.scores is None and region.sink is None
    if simple and isinstance(region.pattern, Causal | Full):
        causal = isinstance(region.pattern, Causal)
    else:
        v = _zeroed(region)
        seen = region.seen
        mask, blind = _mask(region, seen, q.dtype), ~seen.any(-1)
        if region.sink is not None:  # a key and a value of zeros; its score is what the mask adds
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 0, 0, 1))
    v = v.transpose(1, 2)
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=region.scale)
    out = out.transpose(1, 2)
    return out if blind is None else out.masked_fill(blind[..., None, None], 0)


def _mask(region: Region, seen: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1 or H, T, S) to be added to the scores; with a sink (B, H, T, S + 1), the sink last."""
    seen, least = seen[:, None], torch.finfo(dtype).min
    scores = torch.zeros((), dtype=dtype, device=seen.device) if region.scores is None else region.scores.to(dtype)
    mask = scores.masked_fill(~seen, least)
    if region.sink is None:
        return mask
    size = mask.shape[0], len(region.sink), mask.shape[2]
    return torch.cat([mask.expand(*size, -1), region.sink.to(dtype)[:, None, None].expand(*size, 1)], -1)


def _zeroed(region: Region) -> Tensor:
    """Values (B, S, G, D) with those of padding made zero."""
    return region.v.masked_fill(~region.k_where.real[..., None, None], 0)
