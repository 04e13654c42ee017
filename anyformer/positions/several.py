"""Several schemes that act on embeddings, their sum: BERT adds positions and segments (Devlin et al. 2019)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.layer import Part
from anyformer.core.roles import Position
from anyformer.core.spec import PositionSpec, Site, spec
from anyformer.positions.base import OnEmbeddings
from anyformer.positions.segments import Segments
from anyformer.positions.sinusoidal import Sinusoidal


@spec
class Several(PositionSpec):
    """The sum of several schemes that act on embeddings (Devlin et al. 2019)."""

    schemes: Annotated[tuple[Position, ...], Field(min_length=1)]

    @classmethod
    def examples(cls) -> tuple[Several, ...]:
        return (cls(schemes=(Sinusoidal(), Segments(count=3))),)

    def build(self, at: Site) -> SeveralPositions:
        return SeveralPositions(self, at)


class SeveralPositions(OnEmbeddings):
    """schemes: by their numbers."""

    def __init__(self, spec: Several, at: Site) -> None:
        super().__init__(at)
        self.schemes = Part(at.at("schemes"))
        for index, scheme in enumerate(spec.schemes):
            self.schemes.hold(at.at("schemes"), str(index), scheme)
        self.count = len(spec.schemes)
        for index, scheme in enumerate(self.all):
            if not isinstance(scheme, OnEmbeddings):
                raise ValueError(f"{at.path}.schemes.{index}: acts {scheme.acts}; here all act on embeddings")
        self.longest = min((s.longest for s in self.all if s.longest is not None), default=None)

    @property
    def all(self) -> list[OnEmbeddings]:
        """The schemes in order, those that are registered elsewhere included."""
        return [getattr(self.schemes, str(index)) for index in range(self.count)]

    def forward(self, x: Tensor, where: Where) -> Tensor:
        for scheme in self.all:
            x = scheme(x, where)
        return x
