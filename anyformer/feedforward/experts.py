"""Mixture of experts (Shazeer et al. 2017; Mixtral, Jiang et al. 2024): each token goes to the best few of E experts.

a router gives every expert a logit l_e, a score s_e, and a rank by which the top K are chosen
y = f(x) + c sum_{e in top K} w_e f_e(x),  w = the chosen s over their sum, or as they are;  f the shared expert
balance = E sum_e h_e mean(s_e / sum s),  h_e the share of all choices that fell on e: 1 where all is even (Fedus et al.
2022);  a router may have a loss of its own
z = mean(logsumexp(l)²) (Zoph et al. 2022)

No expert is ever full and no token dropped: what became of a token would depend on the others that came in the same
call, which breaks the law of state.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from anyformer.core.context import Context
from anyformer.core.layer import Layer, Part, Stateless
from anyformer.core.roles import FeedForward
from anyformer.core.spec import LayerSpec, NotNegative, Positive, Rows, Site, Size, from_dict, spec
from anyformer.core.state import Past
from anyformer.core.tree import tree_map
from anyformer.feedforward.mlp import MLP
from anyformer.feedforward.routers.base import RouterSpec
from anyformer.feedforward.routers.softmax import SoftmaxRouter

Router = Annotated[RouterSpec, Rows("anyformer.feedforward.routers", default="softmax")]


@spec
class Experts(LayerSpec):
    """Feed-forwards of which each token takes the best few (Shazeer et al. 2017, Mixtral).

    expert: one of them, which is built `count` times. top: how many a token takes. router: how they are chosen.
    renormalise: whether their weights add up to 1 (Mixtral), or are the scores that the router gave them (Switch;
    GShard). scale: what the weights are multiplied by. shared: an expert beside them that every token takes (DeepSeek).
    balance, z: how much the losses beside the main one count.
    """

    expert: FeedForward = MLP()
    count: Size
    top: Size = 2
    router: Router = SoftmaxRouter()
    renormalise: bool = True
    scale: Positive = 1.0
    shared: FeedForward | None = None
    balance: NotNegative = 0.01
    z: NotNegative = 0.0

    @classmethod
    def examples(cls) -> tuple[Experts, ...]:
        mixtral = {"expert": {"kind": "gated", "hidden": 7}, "count": 5, "top": 2, "z": 0.001}
        switch = {"expert": {"kind": "mlp", "hidden": 9}, "count": 4, "top": 1, "renormalise": False}
        router = {"kind": "sigmoid", "groups": 3, "best": 2}
        deepseek = {**mixtral, "count": 6, "top": 3, "router": router, "scale": 2.5, "shared": {"kind": "gated"}}
        return from_dict(cls, mixtral), from_dict(cls, switch), from_dict(cls, deepseek)

    def build(self, at: Site) -> ExpertLayer:
        return ExpertLayer(self, at)


class ExpertLayer(Stateless):
    """router: says who is chosen; expert: the E feed-forwards, by their numbers; shared: one more, or None."""

    shared: Layer | None

    def __init__(self, spec: Experts, at: Site) -> None:
        super().__init__(at)
        if spec.top > spec.count:
            raise ValueError(f"{at.path}: top ({spec.top}) must be at most count ({spec.count})")
        self.count, self.top = spec.count, spec.top
        self.renormalise, self.scale = spec.renormalise, spec.scale
        self.balance, self.z = spec.balance, spec.z
        self.router = spec.router.make(at.at("router", gain=1.0), spec.count, spec.top)
        self.expert = Part(at.at("expert"))
        for index in range(spec.count):
            self.expert.hold(at.at("expert"), str(index), spec.expert)
            if not isinstance(self.one(index), Stateless):
                raise ValueError(f"{at.path}.expert: keeps a past; an expert has to treat every token alone")
        if spec.shared is None:
            self.register_module("shared", None)
        else:
            self.hold(at, "shared", spec.shared)
            if not isinstance(self.shared, Stateless):
                raise ValueError(f"{at.path}.shared: keeps a past; an expert has to treat every token alone")

    def one(self, index: int) -> Stateless:
        """An expert."""
        return getattr(self.expert, str(index))

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        logits = self.router(x)  # (B, T, E)
        scores = self.router.scores(logits)
        chosen = self.router.ranks(scores).topk(self.top).indices  # (B, T, K)
        best = scores.gather(-1, chosen)
        weights = self.scale * (best.softmax(-1) if self.renormalise else best.exp())
        chosen = chosen.masked_fill(~ctx.where.real[..., None], self.count)  # padding goes to nobody
        numbers = torch.arange(self.count + 1, device=x.device)
        counts = (chosen[..., None] == numbers).sum((0, 1, 2))  # (E + 1,), nobody last
        if ctx.tape is not None:
            self.lose(logits, scores, counts[:-1], ctx)
        y = self.mix(x, weights, chosen, counts, ctx)
        return (y if self.shared is None else y + self.shared(x, ctx)[0]), state

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

    def lose(self, logits: Tensor, scores: Tensor, counts: Tensor, ctx: Context) -> None:
        """The losses beside the main one, over real tokens alone."""
        self.router.lose(counts, ctx)
        real = ctx.where.real
        tokens = real.sum().clamp(min=1)
        if self.balance:
            mean = (scores.softmax(-1) * real[..., None]).sum((0, 1)) / tokens
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
