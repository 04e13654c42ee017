"""A linear map with named axes: y = x Wᵀ + b."""

from collections.abc import Mapping

from torch import Generator, Tensor
from torch.nn import functional as F

from anyformer.core.fills import Fill, normal, zeros
from anyformer.core.layer import Part
from anyformer.core.spec import Site

INIT_STD = 0.02  # GPT-2's and BERT's
INIT = normal(INIT_STD)


def residual_std(depth: tuple[int, int]) -> float:
    """GPT-2: a projection into the stream is 1/√(2L) as wide, so that L blocks add up to one."""
    return INIT_STD / (2 * depth[1]) ** 0.5


def times(fill: Fill, gain: float) -> Fill:
    """A fill whose values are multiplied by `gain`."""

    def scaled(tensor: Tensor, generator: Generator) -> None:
        fill(tensor, generator)
        tensor.mul_(gain)

    return scaled


class Linear(Part):
    """weight: (out, in); bias: (out,) or None. The first weights are multiplied by the gain of their place.

    What only decides who is heard, such as queries, keys and routers, stands at a place of gain 1.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, at: Site, out: str, into: str, sizes: Mapping[str, int], bias: bool = False, fill: Fill = INIT
    ) -> None:
        super().__init__(at)
        self.param("weight", (out, into), sizes, times(fill, at.gain))
        if bias:
            self.param("bias", (out,), sizes, zeros)
        else:
            self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return F.linear(x, self.weight, self.bias)
