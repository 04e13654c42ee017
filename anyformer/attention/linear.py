"""Causal linear attention (Katharopoulos et al. 2020): a feature map for the softmax, so that the past is a sum.

phi = elu + 1;  S_t = sum_{j<=t} phi(k_j) v_jᵀ,  z_t = sum_{j<=t} phi(k_j)
out_t = S_tᵀ phi(q_t) / (z_t . phi(q_t) + eps)

Each text of a row has sums of its own. There is no 1/sqrt D.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.attention.heads import Headed
from anyformer.core.context import Context, Where
from anyformer.core.recurrence import Recurrent
from anyformer.core.spec import LayerSpec, Positive, Site, Size, spec
from anyformer.core.tree import tree
from anyformer.kernels.linear import chunked


@spec
class Linear(LayerSpec):
    """Causal attention whose past is one matrix a head (Katharopoulos et al. 2020).

    out_bias: of the projection into the stream; None: as bias.
    """

    heads: Size
    kv_heads: Size | None = None
    head_size: Size | None = None
    bias: bool = False
    out_bias: bool | None = None
    eps: Positive = 1e-6

    def build(self, at: Site) -> LinearAttention:
        return LinearAttention(self, at)


@tree
class Sums:
    """S: (B, H, D, D), z: (B, H, D), of the text that began at `text` (B,): all that linear attention knows of it."""

    S: Tensor
    z: Tensor
    text: Tensor


class LinearAttention(Headed, Recurrent):
    """Its past is a pair of sums, however long the text."""

    def __init__(self, spec: Linear, at: Site) -> None:
        super().__init__(at, spec.heads, spec.kv_heads, spec.head_size, spec.bias, out_bias=spec.out_bias)
        self.eps = spec.eps

    def start(self, batch: int, dtype: torch.dtype) -> Sums:
        weight, size = self.o.weight, self.head_size
        S = weight.new_zeros(batch, self.heads, size, size, dtype=torch.promote_types(dtype, torch.float32))
        return Sums(S, S[..., 0], torch.zeros(batch, dtype=torch.long, device=weight.device))

    def run(self, x: Tensor, where: Where, summary: Sums, ctx: Context) -> tuple[Tensor, Sums]:
        q, k, v = self.split(x)
        repeat = self.heads // self.groups
        dtype = torch.promote_types(x.dtype, torch.float32)
        k, v = k.repeat_interleave(repeat, 2), v.repeat_interleave(repeat, 2)
        q, k, v = (part.to(dtype).transpose(1, 2) for part in (q, k, v))  # (B, H, T, D)
        with torch.autocast(x.device.type, enabled=False):  # sums over a whole text need their digits
            q, k = feature(q), feature(k) * where.real[:, None, :, None]
            start = where.time - where.offset
            top, bottom, S, z, text = chunked(q, k, v, start, summary.S, summary.z, summary.text)
            out = (top / (bottom[..., None] + self.eps)).transpose(1, 2).to(x.dtype)
        return self.join(ctx.point(self.path, "out", out)), Sums(S, z, text)


def feature(x: Tensor) -> Tensor:
    """phi = elu + 1: positive, and never zero."""
    return F.elu(x) + 1
