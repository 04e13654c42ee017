"""Numbers of whole texts (as BERT does for STS-B; Devlin et al. 2019): y = W p + b of a pooled vector p.

The loss of a row is the mean over its K numbers of (y - target)².
"""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.spec import Site, Size, spec
from anyformer.heads.pooling import PooledHead, PooledSpec


@spec
class Regress(PooledSpec):
    """Numbers for each text, with a squared error (as BERT for STS-B; Devlin et al. 2019).

    outputs: how many numbers.
    """

    outputs: Size = 1

    @classmethod
    def examples(cls) -> tuple[Regress, ...]:
        return (cls(outputs=2, pool="mean"),)

    def build(self, at: Site) -> RegressHead:
        return RegressHead(self, at, self.outputs)


class RegressHead(PooledHead):
    """Numbers as they are."""

    def loss(self, h: Tensor, targets: Tensor, where: Where, smoothing: float = 0.0) -> Tensor:
        """(B,) of targets (B, K), numbers; (B,) will do where K is 1. Every number counts, -100 too."""
        if smoothing:
            raise ValueError(f"{self.path}: smoothing is of classes; this head says numbers")
        said = self(h, where)
        if targets.shape not in (said.shape, said.squeeze(1).shape):
            raise ValueError(f"{self.path}: targets must be {tuple(said.shape)}; came {tuple(targets.shape)}")
        exact = torch.promote_types(said.dtype, torch.float32)
        return (said - targets.view_as(said).to(exact)).square().mean(1)
