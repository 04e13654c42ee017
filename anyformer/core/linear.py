"""A linear map with named axes: y = x Wᵀ + b."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import Fill, times, zeros
from anyformer.core.layer import Part, extent
from anyformer.core.spec import Site


class Beside(Part, ABC):
    """What is learned beside a linear map, and joins what the map says."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""

    @abstractmethod
    def matrix(self, dtype: torch.dtype) -> Tensor:
        """(out, in): what it multiplies by, computed in a dtype, nothing of it dropped."""


class Linear(Part):
    """weight: (out, in); bias: (out,) or None. The first weights are `fill`, or what the model's `initial` says, times
    the gain of their place; biases are 0.

    joins: whether its output is added to the stream, beside two such maps a layer in all. What only decides who is
    heard, such as queries, keys and routers, stands at a place of gain 1.

    adapter: what was put beside it later. Whoever multiplies by `weight` leaves it out: take `joined`, or `matrix`.
    """

    weight: Tensor
    bias: Tensor | None
    adapter: Beside | None

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
        self.sizes = sizes
        rows, columns = extent(out, sizes), extent(into, sizes)
        first = fill or at.initial.fill(rows, columns, 2 * at.depth[1] if joins else 1)
        self.param("weight", (out, into), sizes, times(first, at.gain))
        if bias:
            self.param("bias", (out,), sizes, zeros)
        else:
            self.register_parameter("bias", None)
        self.register_module("adapter", None)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return self.adapted(F.linear(x, self.weight, self.bias), x)

    def adapted(self, y: Tensor, x: Tensor) -> Tensor:
        """What the map says of x (…, in), y (…, out), joined by its adapter."""
        return y if self.adapter is None else y + self.adapter(x)

    @property
    def matrix(self) -> Tensor:
        """(out, in): the weight with what its adapter adds, for who takes the product apart."""
        return self.weight if self.adapter is None else self.weight + self.adapter.matrix(self.weight.dtype)


def joined(x: Tensor, maps: Sequence[Linear]) -> list[Tensor]:
    """What several maps say of the same vectors, in one product; a map without a bias has zeros."""
    bias = None
    if any(part.bias is not None for part in maps):
        rows = [part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in maps]
        bias = torch.cat(rows)
    together = F.linear(x, torch.cat([part.weight for part in maps]), bias)
    parts = together.split([len(part.weight) for part in maps], -1)
    return [part.adapted(y, x) for part, y in zip(maps, parts, strict=True)]
