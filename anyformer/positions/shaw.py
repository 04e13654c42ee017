"""Shaw's relative positions (Shaw et al. 2018): a learned vector per clipped distance joins the key, another the value.

e_ij = q_i . (k_j + a^K_r) / sqrt D,  z_i = sum_j w_ij (v_j + a^V_r),  r = clip(j - i, -k, k)

The 2k+1 vectors of size D serve all heads. Neither is added pair by pair: q_i . a^K_r is looked up among 2k+1 products,
and the weights are summed up by r before they meet a^V. A causal mixer never reads the vectors of r > 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.fills import small
from anyformer.core.spec import PositionSpec, Site, Size, spec
from anyformer.positions.base import OnEdges, on_a_line


@spec
class Shaw(PositionSpec):
    """A learned vector per distance, added to keys and values (Shaw et al. 2018).

    furthest: k, from where on all distances are one. values: whether a^V is there too; the paper finds that it adds
    little, and without it only scores change, so that a fused kernel serves.
    """

    furthest: Size = 16
    values: bool = True

    @classmethod
    def examples(cls) -> tuple[Shaw, ...]:
        return cls(furthest=3), cls(furthest=5, values=False)

    def build(self, at: Site) -> ShawPosition:
        return ShawPosition(self, at)


class ShawPosition(OnEdges):
    """k and v: (2 furthest + 1, D), what joins keys and values; v may be None."""

    k: Tensor
    v: Tensor | None

    def __init__(self, spec: Shaw, at: Site) -> None:
        super().__init__(at)
        on_a_line(at)
        if at.head_size is None:
            raise ValueError(
                f"{at.path}: Shaw's vectors are as long as a head and stand in the mixers, which have them"
            )
        self.furthest = spec.furthest
        sizes = {"N": 2 * spec.furthest + 1, "D": at.head_size}
        self.param("k", ("N", "D"), sizes, small)
        if spec.values:
            self.param("v", ("N", "D"), sizes, small)
        else:
            self.register_parameter("v", None)

    def forward(self, q: Tensor, where: Where, seen: Where) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        ahead = seen.coords[:, None, :, 0] - where.coords[:, :, None, 0]
        r = ahead.clamp(-self.furthest, self.furthest) + self.furthest  # (B, T, S)
        r = r[:, None].expand(-1, q.shape[2], -1, -1)
        scores = torch.einsum("bthd,nd->bhtn", q, self.k).gather(-1, r)
        v = self.v
        if v is None:
            return scores, None

        def adds(weights: Tensor) -> Tensor:
            sums = weights.new_zeros(*weights.shape[:-1], v.shape[0]).scatter_add(-1, r, weights)  # (B, H, T, 2k+1)
            return torch.einsum("bhtn,nd->bthd", sums.to(v.dtype), v)

        return scores, adds
