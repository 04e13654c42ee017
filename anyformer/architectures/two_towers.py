"""Texts and images as vectors that are compared (CLIP, Radford et al. 2021; SigLIP, Zhai et al. 2023).

logits_ij = e^s t_i . m_j + b, of a text t_i and an image m_j. The loss of n pairs, i beside i:
    softmax: -(1 / 2n) sum_i log softmax_j(logits_ij) + log softmax_j(logits_ji), at j = i
    sigmoid: -(1 / n) sum_ij log sigmoid(z_ij logits_ij), z_ij = 1 where i = j, else -1
"""

from __future__ import annotations

from math import log
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Unpack

from anyformer.architectures.tokens import Entrance, OverTokens
from anyformer.core.build import site_of
from anyformer.core.call import Given
from anyformer.core.context import Context
from anyformer.core.fills import constant
from anyformer.core.layer import Layer
from anyformer.core.model import Model
from anyformer.core.roles import AnyLayer, AnyModel, Head
from anyformer.core.spec import Positive, Site, spec
from anyformer.core.state import Past, Room
from anyformer.heads.pooling import WHOLE
from anyformer.heads.sentence import Sentence


@spec
class TwoTowers(OverTokens):
    """Texts and images as vectors that are compared (CLIP; Radford et al. 2021).

    body, head: of the texts, which are the model's ids. image: the model of what they are compared with; its head gives
    vectors as long as the texts'. pairs: how they are learnt: which image belongs to a text and which text to an image
    (softmax), or whether each pair belongs together, with a bias (sigmoid; SigLIP). scale: e^s at first.
    """

    EXEMPT = WHOLE

    body: AnyLayer
    head: Head = Sentence()
    image: AnyModel
    pairs: Literal["softmax", "sigmoid"] = "softmax"
    scale: Positive = 1 / 0.07

    def make(self, at: Site) -> TwoTowersModel:
        return TwoTowersModel(self, at)


class TwoTowersModel(Model):
    """`model.logits(model(ids), model.image(pixels))`. scale: (), s; bias: () or None."""

    body: Layer
    image: Model
    scale: Tensor
    bias: Tensor | None

    def __init__(self, spec: TwoTowers, at: Site) -> None:
        super().__init__(spec, at)
        self.enter = Entrance(self, at, spec.embedding, spec.position, spec.norm, spec.dropout)
        self.longest = self.enter.longest
        self.hold(at, "body", spec.body)
        self.hold_head(at, spec.head)
        self.add_module("image", spec.image.make(site_of(spec.image, at.at("image"))))
        for name, head in (("head", self.head), ("image.head", self.image.head)):
            if head is None or not head.pools:
                raise ValueError(f"{name}: a head that makes a vector of a whole row, as `sentence` and `probe` do")
        self.param("scale", (), {}, constant(log(spec.scale)))
        if spec.pairs == "sigmoid":
            self.param("bias", (), {}, constant(-10.0))  # most pairs do not belong together
        else:
            self.register_parameter("bias", None)

    def logits(self, texts: Tensor, images: Tensor) -> Tensor:
        """(B, E) and (I, E) -> (B, I)."""
        logits = self.scale.exp() * texts @ images.T
        return logits if self.bias is None else logits + self.bias

    def contrast(self, ids: Tensor, pixels: Tensor, **given: Unpack[Given]) -> Tensor:
        """The loss of pairs, text i with image i, a scalar; what is given is of the texts."""
        logits = self.logits(self(ids, **given), self.image(pixels))
        if len(ids) != len(pixels):
            raise ValueError(f"pairs: as many texts as images; came {len(ids)} texts and {len(pixels)} images")
        pairs = torch.arange(len(ids), device=logits.device)
        if self.bias is None:
            return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        together = torch.where(pairs == pairs[:, None], 1, -1)
        return -F.logsigmoid(together * logits).sum(1).mean()

    def hidden(self, ids: Tensor, ctx: Context, past: Past) -> tuple[Tensor, Past]:
        return self.body(ctx.point(self.path, "embedding", self.enter(ids, ctx.where)), ctx, past)

    def init_body(self, room: Room) -> Past:
        return self.body.init_state(room)

    def rewind_body(self, past: Past, until: Tensor) -> Past:
        return self.body.rewind(past, until)
