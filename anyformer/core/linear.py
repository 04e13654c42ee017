"""A linear map with named axes: y = x Wᵀ + b."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import Fill, times, zeros
from anyformer.core.layer import Part, extent
from anyformer.core.spec import Site


class Linear(Part):
    """weight: (out, in); bias: (out,) or None. The first weights are `fill`, or what the model's `initial` says, times
    the gain of their place; biases are 0.

    joins: whether its output is added to the stream, beside two such maps a layer in all. What only decides who is
    heard, such as queries, keys and routers, stands at a place of gain 1.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        at: Site,
        out: str,
        into: str,
        sizes: Mapping[str, int],
        bias: bool = False,
        *,
        joins: bool = False,
        fill: Fill | None = None,
    ) -> None:
        super().__init__(at)
        rows, columns = extent(out, sizes), extent(into, sizes)
        first = fill or at.initial.fill(rows, columns, 2 * at.depth[1] if joins else 1)
        self.param("weight", (out, into), sizes, times(first, at.gain))
        if bias:
            self.param("bias", (out,), sizes, zeros)
        else:
            self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return F.linear(x, self.weight, self.bias)
