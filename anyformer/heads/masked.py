"""BERT's head for masked tokens (Devlin et al. 2019): logits = W_e norm(a(W h + b)) + c, W_e being the embedding."""

from __future__ import annotations

from torch import Tensor, nn

from anyformer.core.linear import Linear
from anyformer.core.roles import Head, Norm
from anyformer.core.spec import HeadSpec, Site, spec
from anyformer.feedforward.activations import FUNCTIONS, Activation
from anyformer.heads.base import TokenHead
from anyformer.heads.tied import Tied
from anyformer.norms.layer import LayerNorm


@spec
class Masked(HeadSpec):
    """A nonlinear map of the stream before another head (Devlin et al. 2019).

    decoder: that head, which makes the logits.
    """

    activation: Activation = "gelu"
    norm: Norm = LayerNorm(eps=1e-12)
    decoder: Head = Tied(bias=True)

    def build(self, at: Site) -> MaskedHead:
        return MaskedHead(self, at)


class MaskedHead(TokenHead):
    """dense: (C, C), then norm and decoder."""

    norm: nn.Module
    decoder: TokenHead

    def __init__(self, spec: Masked, at: Site) -> None:
        super().__init__(at)
        self.activation = FUNCTIONS[spec.activation]
        self.dense = Linear(at.at("dense"), "C", "C", {"C": at.width}, bias=True)
        self.hold(at, "norm", spec.norm)
        self.hold(at, "decoder", spec.decoder)
        if not isinstance(self.decoder, TokenHead):
            raise ValueError(f"{at.path}.decoder: it answers for every token, as `tied` and `language` do")
        self.size = self.decoder.size

    def logits(self, h: Tensor) -> Tensor:
        return self.decoder.logits(self.norm(self.activation(self.dense(h))))
