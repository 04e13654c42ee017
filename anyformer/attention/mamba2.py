"""Mamba-2 (Dao & Gu 2024): a state-space layer, which is linear attention whose sums fade, behind a short convolution.

v, k, q = silu(conv(W x)),  dt = softplus(W_dt x + b),  S_t = exp(-dt_t e^A) S_{t-1} + dt_t k_t v_tᵀ
y_t = W_o norm((S_tᵀ q_t + skip v_t) silu(W_z x_t))

The paper's x, B and C are v, k and q here, as its duality has them; so a model whose attention becomes a state space
keeps the maps that fit (Wang et al. 2024). Each text of a row has a past of its own.
"""

from __future__ import annotations

from math import log

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from anyformer.core.context import Context, Where
from anyformer.core.fills import ones, uniform, zeros
from anyformer.core.layer import Part
from anyformer.core.linear import Linear, joined
from anyformer.core.recurrence import Recurrent
from anyformer.core.spec import LayerSpec, NotNegative, Positive, Site, Size, spec
from anyformer.core.tree import index_like, tree, tree_map
from anyformer.feedforward.activations import FUNCTIONS, Activation
from anyformer.kernels.mamba2 import chunked, scan

RATES, STEPS = (1.0, 16.0), (1e-3, 1e-1)  # between which e^A and dt begin


@spec
class Mamba2(LayerSpec):
    """A state space whose past is a few tokens and one fading matrix a head (Dao & Gu 2024).

    head_size: None: of all heads together, twice the width. state: how many numbers each channel of a head keeps.
    groups: heads of one group share q and k, and are normalised together. kernel: how many tokens the convolution sees.
    time_step_limit: the least and the largest dt; None: no bound. chunk: how many tokens are computed at once.
    """

    heads: Size
    head_size: Size | None = None
    state: Size = 128
    groups: Size = 1
    kernel: Size = 4
    bias: bool = False
    conv_bias: bool = True
    activation: Activation = "silu"
    time_step_limit: tuple[NotNegative, Positive | None] = (0.0, None)
    eps: Positive = 1e-5
    chunk: Size = 64

    @classmethod
    def examples(cls) -> tuple[Mamba2, ...]:
        return (
            cls(heads=4, head_size=5, state=3, groups=2, chunk=8),
            cls(heads=3, state=2, kernel=1, bias=True, conv_bias=False, time_step_limit=(0.2, 0.9)),
        )

    def build(self, at: Site) -> Mamba2Mixer:
        return Mamba2Mixer(self, at)


@tree
class Recent:
    """x: (B, K - 1, X), what a convolution may still read; texts: (B, K - 1), when their texts began; -1: no token."""

    x: Tensor
    texts: Tensor


@tree
class Fading:
    """recent: the last tokens; S: (B, H, D, E), of the text that began at `text` (B,)."""

    recent: Recent
    S: Tensor
    text: Tensor


class Mamba2Mixer(Recurrent):
    """H heads of size E in G groups, D numbers of state: gate and v (H E, C), k and q (G D, C), dt (H, C), o (C, H E).

    dt_bias, A_log, skip: (H,).
    """

    dt_bias: Tensor
    A_log: Tensor
    skip: Tensor

    def __init__(self, spec: Mamba2, at: Site) -> None:
        super().__init__(at)
        heads, groups, least, most = spec.heads, spec.groups, *spec.time_step_limit
        if heads % groups:
            raise ValueError(f"{at.path}: heads ({heads}) must be a multiple of groups ({groups})")
        if spec.head_size is None and 2 * at.width % heads:
            raise ValueError(
                f"{at.path}: 2 width ({2 * at.width}) must be a multiple of heads ({heads}), or give head_size"
            )
        if most is not None and most < least:
            raise ValueError(f"{at.path}: time_step_limit ({least}, {most}) should rise")
        self.limit, self.chunk, self.activation = spec.time_step_limit, spec.chunk, FUNCTIONS[spec.activation]
        self.heads, self.groups, self.state = heads, groups, spec.state
        self.head_size = spec.head_size or 2 * at.width // heads
        sizes = {"C": at.width, "H": heads, "G": groups, "D": spec.state, "E": self.head_size}
        # a gain is of what joins the stream; what decides how much is heard is left as it is
        self.gate = Linear(at.at("gate", gain=1.0), "H E", "C", sizes, spec.bias)
        self.v = Linear(at.at("v"), "H E", "C", sizes, spec.bias)
        self.k = Linear(at.at("k", gain=1.0), "G D", "C", sizes, spec.bias)
        self.q = Linear(at.at("q", gain=1.0), "G D", "C", sizes, spec.bias)
        self.dt = Linear(at.at("dt", gain=1.0), "H", "C", sizes, spec.bias)
        self.o = Linear(at.at("o"), "C", "H E", sizes, spec.bias, joins=True)
        self.inner = [heads * self.head_size, groups * spec.state, groups * spec.state]  # of v, k and q
        self.conv = CausalConv(at.at("conv"), sum(self.inner), spec.kernel, spec.conv_bias)
        self.norm = GatedNorm(at.at("norm", width=self.inner[0]), groups, spec.eps)
        self.param("dt_bias", ("H",), sizes, first_steps)
        self.param("A_log", ("H",), sizes, first_rates)
        self.param("skip", ("H",), sizes, ones)

    def start(self, batch: int, dtype: torch.dtype) -> Fading:
        weight = self.o.weight
        text = torch.zeros(batch, dtype=torch.long, device=weight.device)
        wide = torch.promote_types(dtype, torch.float32)
        S = weight.new_zeros(batch, self.heads, self.state, self.head_size, dtype=wide)
        return Fading(self.conv.start(text, dtype), S, text)

    def run(self, x: Tensor, where: Where, summary: Fading, ctx: Context) -> tuple[Tensor, Fading]:
        gate, *vkq, dt = joined(x, (self.gate, self.v, self.k, self.q, self.dt))
        start = (where.time - where.offset).masked_fill(~where.real, -1)
        mixed, recent = self.conv(torch.cat(vkq, -1), start, summary.recent, ctx.straight)
        dtype = torch.promote_types(x.dtype, torch.float32)
        v, k, q = self.activation(mixed).to(dtype).split(self.inner, -1)
        v, k, q = self.cut(v, self.heads), self.cut(k, self.groups), self.cut(q, self.groups)
        with torch.autocast(x.device.type, enabled=False):  # sums over a whole text need their digits
            dt = F.softplus(dt.to(dtype) + self.dt_bias.to(dtype)).clamp(*self.limit)
            dt = (dt * where.real[..., None]).transpose(1, 2)  # (B, H, T); without a step nothing fades or comes in
            a = -self.A_log.to(dtype).exp()[:, None] * dt
            given = q, k, v * dt[..., None], a, start, summary.S, summary.text
            out, S, text = scan(*given) if x.shape[1] == 1 else chunked(*given, self.chunk)
            out = (out + self.skip.to(dtype)[:, None, None] * v).transpose(1, 2)  # (B, T, H, E)
            out = self.norm(ctx.point(self.path, "out", out).flatten(-2), gate.to(dtype))
        return self.o(out.to(x.dtype)), Fading(recent, S, text)

    def cut(self, x: Tensor, heads: int) -> Tensor:
        """(B, T, H E) -> (B, H, T, E)."""
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class CausalConv(Part):
    """Each channel alone: y_t = b + sum_j w_j x_{t - K + 1 + j}, within a text. weight: (X, 1, K), bias: (X,)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, at: Site, channels: int, kernel: int, bias: bool) -> None:
        super().__init__(at)
        sizes = {"X": channels, "1": 1, "K": kernel}
        self.param("weight", ("X", "1", "K"), sizes, uniform(kernel**-0.5))
        if bias:
            self.param("bias", ("X",), sizes, zeros)
        else:
            self.register_parameter("bias", None)

    def start(self, text: Tensor, dtype: torch.dtype) -> Recent:
        channels, _, kernel = self.weight.shape
        shape = text.shape[0], kernel - 1
        return Recent(self.weight.new_zeros(*shape, channels, dtype=dtype), text.new_full(shape, -1))

    def forward(self, x: Tensor, texts: Tensor, past: Recent, straight: bool) -> tuple[Tensor, Recent]:
        """x: (B, T, X); texts: (B, T), when the token's text began, -1: no token."""
        length, before, dtype = x.shape[1], past.x.shape[1], past.x.dtype
        x, texts = torch.cat([past.x, x], 1), torch.cat([past.texts, texts], 1)
        order = None if straight else (texts >= 0).int().argsort(dim=1, stable=True)  # holes first: no token has one
        if order is not None:
            x, texts = x.gather(1, index_like(order, x)), texts.gather(1, order)
        own, y = texts[:, before:], 0 if self.bias is None else self.bias
        for at, weight in enumerate(self.weight[:, 0].unbind(-1)):
            other = texts[:, at : at + length] != own
            y = y + (x[:, at : at + length] * weight).masked_fill(other[..., None], 0)
        assert isinstance(y, Tensor)
        recent = tree_map(whole, Recent(x[:, length:].to(dtype), texts[:, length:]))
        if order is not None:
            place = order.argsort(1)[:, before:] - before
            y = y.gather(1, index_like(place.clamp(min=0), y))
        return y, recent


class GatedNorm(Part):
    """y = g x silu(z) / sqrt(mean (x silu(z))² + eps), the mean over a group's channels. weight: (C,)."""

    weight: Tensor

    def __init__(self, at: Site, groups: int, eps: float) -> None:
        super().__init__(at)
        self.groups, self.eps = groups, eps
        self.param("weight", ("C",), {"C": at.width}, ones)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        x = (x * F.silu(gate)).unflatten(-1, (self.groups, -1))
        return F.rms_norm(x, x.shape[-1:], eps=self.eps).flatten(-2) * self.weight.to(x.dtype)


def whole(x: Tensor) -> Tensor:
    """A copy in memory of its own: a slice would keep the whole call alive."""
    return x.clone(memory_format=torch.contiguous_format)


def first_rates(tensor: Tensor, generator: Generator) -> None:
    """A, the logarithm of a rate that is uniform."""
    tensor.copy_(torch.empty(tensor.shape).uniform_(*RATES, generator=generator).log())


def first_steps(tensor: Tensor, generator: Generator) -> None:
    """What softplus turns into a step whose logarithm is uniform."""
    low, high = STEPS
    dt = torch.empty(tensor.shape).uniform_(log(low), log(high), generator=generator).exp()
    tensor.copy_(dt.expm1().log())
