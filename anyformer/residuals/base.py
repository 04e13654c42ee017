"""A residual stands on both sides of a part: what the part reads, and how what it says joins the stream."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from anyformer.core.layer import Part
from anyformer.core.spec import Builds, Ref, Site


class Residual(Part, ABC):
    """One per block; it holds what each of the block's parts needs under the part's name.

    gain: what the first weights of those parts are multiplied by, their linear maps that say so excepted.
    """

    gain: float = 1.0

    @abstractmethod
    def enter(self, part: str, x: Tensor) -> Tensor:
        """What `part` reads, from the stream (B, T, C)."""

    @abstractmethod
    def leave(self, part: str, x: Tensor, y: Tensor) -> Tensor:
        """The stream after `part` said y."""


class PerPart(Part):
    """The same kind of module once for each part of a block: `norm.mixer`, `norm.ff`.

    mixer: another kind for that part.
    """

    def __init__(self, at: Site, spec: Builds[nn.Module] | Ref, mixer: Builds[nn.Module] | Ref | None = None) -> None:
        super().__init__(at)
        if mixer is not None and "mixer" not in at.joins:
            raise ValueError(f"{at.path}: the block joins {', '.join(at.joins)}, and no mixer that has its own norm")
        for part in at.joins:
            self.hold(at, part, spec if mixer is None or part != "mixer" else mixer)

    def __getitem__(self, part: str) -> nn.Module:
        return self._modules[part]  # pyright: ignore[reportReturnType]
