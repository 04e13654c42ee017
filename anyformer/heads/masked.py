"""BERT's head for masked tokens (Devlin et al. 2019): logits = W_e norm(a(W h + b)) + c, W_e being the embedding."""

from __future__ import annotations

from torch import Tensor, nn

from anyformer.core.linear import Linear
from anyformer.core.roles import Head, Norm
from anyformer.core.spec import HeadSpec, Site, Size, spec
from anyformer.feedforward.activations import FUNCTIONS, Activation
from anyformer.heads.base import TokenHead
from anyformer.heads.language import Language
from anyformer.heads.tied import Tied
from anyformer.norms.layer import LayerNorm


@spec
class Masked(HeadSpec):
    """A nonlinear map of the stream before another head (Devlin et al. 2019).

    decoder: that head, which makes the logits. size: what the map makes of the stream's width; None: the same. Narrow
    embeddings that are tied need it: ALBERT's, and OPT-350m's with `identity` and `no_norm`.
    """

    activation: Activation = "gelu"
    norm: Norm = LayerNorm(eps=1e-12)
    decoder: Head = Tied(bias=True)
    size: Size | None = None
    bias: bool = True

    @classmethod
    def examples(cls) -> tuple[Masked, ...]:
        return cls(), cls(size=5, bias=False, decoder=Language())

    def build(self, at: Site) -> MaskedHead:
        return MaskedHead(self, at)


class MaskedHead(TokenHead):
    """dense: (E, C), then norm and decoder."""

    norm: nn.Module
    decoder: TokenHead

    def __init__(self, spec: Masked, at: Site) -> None:
        super().__init__(at)
        self.activation = FUNCTIONS[spec.activation]
        size = spec.size or at.width
        self.dense = Linear(at.at("dense"), "E", "C", {"E": size, "C": at.width}, spec.bias)
        self.hold(at, "norm", spec.norm, width=size)
        self.hold(at, "decoder", spec.decoder, width=size)
        if not isinstance(self.decoder, TokenHead):
            raise ValueError(f"{at.path}.decoder: it answers for every token, as `tied` and `language` do")
        self.size = self.decoder.size

    def logits(self, h: Tensor) -> Tensor:
        return self.decoder.logits(self.norm(self.activation(self.dense(h))))
