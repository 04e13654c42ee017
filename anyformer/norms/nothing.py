"""No normalisation: the vectors as they are (He & Hofmann 2024 train such blocks)."""

from __future__ import annotations

from torch import Tensor

from anyformer.core.layer import Part
from anyformer.core.spec import NormSpec, Site, spec


@spec
class NoNorm(NormSpec):
    """No normalisation (He & Hofmann 2024)."""

    def build(self, at: Site) -> NoNormPart:
        return NoNormPart(at)


class NoNormPart(Part):
    """The identity."""

    def forward(self, x: Tensor) -> Tensor:
        return x
