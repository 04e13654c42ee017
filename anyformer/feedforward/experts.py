"""Mixture of experts (Shazeer et al. 2017; Mixtral, Jiang et al. 2024): each token goes to the best few of E experts.

l = W_r x,  p = softmax(l)
y = sum_{e in top K} w_e f_e(x),  w = softmax of the K chosen l (p over the sum of the chosen), or the chosen p as it is
balance = E sum_e s_e mean(p_e),  s_e the share of all choices that fell on e: 1 where all is even (Fedus et al. 2022)
z = mean(logsumexp(l)²) (Zoph et al. 2022)

No expert is ever full and no token dropped: what became of a token would depend on the others that came in the same
call, which breaks the law of state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.core.context import Context
from anyformer.core.layer import Part, Stateless
from anyformer.core.linear import Linear
from anyformer.core.roles import FeedForward
from anyformer.core.spec import LayerSpec, NotNegative, Site, Size, from_dict, spec
from anyformer.core.state import Past
from anyformer.core.tree import tree_map
from anyformer.feedforward.mlp import MLP


@spec
class Experts(LayerSpec):
    """Feed-forwards of which each token takes the best few (Shazeer et al. 2017, Mixtral).

    expert: one of them, which is built `count` times. top: how many a token takes. renormalise: whether the weights of
    those add up to 1 (Mixtral), or are what the softmax over all gave them (Switch; GShard). balance, z: how much the
    losses beside the main one count.
    """

    expert: FeedForward = MLP()
    count: Size
    top: Size = 2
    renormalise: bool = True
    balance: NotNegative = 0.01
    z: NotNegative = 0.0

    @classmethod
    def examples(cls) -> tuple[Experts, ...]:
        mixtral = {"expert": {"kind": "gated", "hidden": 7}, "count": 5, "top": 2, "z": 0.001}
        switch = {"expert": {"kind": "mlp", "hidden": 9}, "count": 4, "top": 1, "renormalise": False}
        return from_dict(cls, mixtral), from_dict(cls, switch)

    def build(self, at: Site) -> ExpertLayer:
        return ExpertLayer(self, at)


class ExpertLayer(Stateless):
    """router: (E, C); expert: the E feed-forwards, by their numbers."""

    def __init__(self, spec: Experts, at: Site) -> None:
        super().__init__(at)
        if spec.top > spec.count:
            raise ValueError(f"{at.path}: top ({spec.top}) must be at most count ({spec.count})")
        self.count, self.top, self.renormalise = spec.count, spec.top, spec.renormalise
        self.balance, self.z = spec.balance, spec.z
        self.router = Linear(at.at("router", gain=1.0), "E", "C", {"E": spec.count, "C": at.width})
        self.expert = Part(at.at("expert"))
        for index in range(spec.count):
            self.expert.hold(at.at("expert"), str(index), spec.expert)
            if not isinstance(self.one(index), Stateless):
                raise ValueError(f"{at.path}.expert: keeps a past; an expert has to treat every token alone")

    def one(self, index: int) -> Stateless:
        """An expert."""
        return getattr(self.expert, str(index))

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        logits = self.router(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # (B, T, E)
        best, chosen = logits.topk(self.top)  # (B, T, K)
        weights = best.softmax(-1) if self.renormalise else logits.softmax(-1).gather(-1, chosen)
        chosen = chosen.masked_fill(~ctx.where.real[..., None], self.count)  # padding goes to nobody
        numbers = torch.arange(self.count + 1, device=x.device)
        counts = (chosen[..., None] == numbers).sum((0, 1, 2))  # (E + 1,), nobody last
        if ctx.tape is not None:
            self.lose(logits, counts[:-1], ctx)
        return self.mix(x, weights, chosen, counts, ctx), state

    def mix(self, x: Tensor, weights: Tensor, chosen: Tensor, counts: Tensor, ctx: Context) -> Tensor:
        """(B, T, C): every expert reads its own tokens, gathered, and no others."""
        rows, weights = x.flatten(0, 1), weights.flatten()
        where = tree_map(lambda value: value.flatten(0, 1), ctx.where)
        y = torch.zeros_like(rows)
        choices = chosen.flatten().argsort(stable=True).split(sizes(counts))
        # Most experts are idle in a step of decoding. Training hears them too, so that every weight has a gradient.
        everyone = self.training or torch.compiler.is_compiling()
        for index, choice in enumerate(choices[:-1]):
            if not everyone and not len(choice):
                continue
            token = choice // self.top
            here = ctx.moved(tree_map(lambda value, token=token: value[token][None], where))
            said, _ = self.one(index)(rows[token][None], here)
            y.index_add_(0, token, (said[0] * weights[choice, None]).to(y.dtype))
        return y.view_as(x)

    def lose(self, logits: Tensor, counts: Tensor, ctx: Context) -> None:
        """The losses beside the main one, over real tokens alone."""
        real = ctx.where.real
        tokens = real.sum().clamp(min=1)
        if self.balance:
            mean = (logits.softmax(-1) * real[..., None]).sum((0, 1)) / tokens
            choices = tokens * self.top
            ctx.lose(self.path, "balance", self.balance * self.count * (counts * mean).sum() / choices)
        if self.z:
            ctx.lose(self.path, "z", self.z * (logits.logsumexp(-1).square() * real).sum() / tokens)


def sizes(counts: Tensor) -> list[int]:
    """The counts on the host; while compiling, as numbers that only the device knows."""
    if not torch.compiler.is_dynamo_compiling():
        return counts.tolist()
    with torch._dynamo.patch_dynamo_config(capture_scalar_outputs=True):
        return counts.tolist()
