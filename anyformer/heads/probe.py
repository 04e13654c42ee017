"""A vector by attention (Lee et al. 2019; SigLIP, Zhai et al. 2023): y = a + ff(norm(a)), a = attention(probe, tokens).

The probe is a learned query, one for all inputs.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from anyformer.attention.cross import Cross
from anyformer.core.context import Context, Source, Where
from anyformer.core.fills import small
from anyformer.core.head import Head
from anyformer.core.layer import Layer
from anyformer.core.roles import FeedForward, Norm
from anyformer.core.spec import HeadSpec, Site, Size, spec
from anyformer.feedforward.mlp import MLP
from anyformer.heads.pooling import WHOLE, refuse_packed
from anyformer.norms.layer import LayerNorm

TOKENS = "tokens"


@spec
class Probe(HeadSpec):
    """A vector for each input: what a learned query reads of its tokens (Lee et al. 2019; Zhai et al. 2023).

    unit: vectors of length 1. Only others tell what a vector is worth: it has no loss.
    """

    EXEMPT: ClassVar = WHOLE

    heads: Size
    norm: Norm = LayerNorm()
    ff: FeedForward = MLP()
    unit: bool = True

    @classmethod
    def examples(cls) -> tuple[Probe, ...]:
        return (cls(heads=4, norm=LayerNorm(eps=0.1), ff=MLP(hidden=7)),)

    def build(self, at: Site) -> ProbeHead:
        return ProbeHead(self, at)


class ProbeHead(Head):
    """probe: (1, C), attention, norm and ff."""

    pools = True
    probe: Tensor
    norm: nn.Module
    ff: Layer

    def __init__(self, spec: Probe, at: Site) -> None:
        super().__init__(at)
        refuse_packed(at)
        self.unit = spec.unit
        self.param("probe", ("one", "C"), {"one": 1, "C": at.width}, small)
        reader = Cross(heads=spec.heads, source=TOKENS, bias=True)
        self.attention = at.build(reader, "attention", sources=frozenset({TOKENS}))
        self.hold(at, "norm", spec.norm)
        self.hold(at, "ff", spec.ff)

    def forward(self, h: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> (B, C)."""
        time = where.time.new_zeros(h.shape[0], 1)
        ctx = Context(Where(time, time[..., None], {}), {TOKENS: Source(h, where)})
        x, _ = self.attention(self.probe.to(h.dtype).expand(h.shape[0], 1, -1), ctx)
        x = (x + self.ff(self.norm(x), ctx)[0])[:, 0]
        return F.normalize(x, dim=-1) if self.unit else x

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        raise ValueError(f"{self.path}: a vector has no loss by itself; an objective compares it with those of others")
