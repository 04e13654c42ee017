"""No positions (NoPE; Haviv et al. 2022, Kazemnejad et al. 2023): a causal mask alone lets a decoder count."""

from __future__ import annotations

from anyformer.core.spec import PositionSpec, Site, spec
from anyformer.positions.base import Nowhere


@spec
class NoPosition(PositionSpec):
    """No positions (Haviv et al. 2022)."""

    def build(self, at: Site) -> Nowhere:
        return Nowhere(at)
