"""Images packed into a row, each token at (y, x): half of a head's pairs turn by y, half by x (Heo et al. 2024)."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from harness import assert_lawful, build, redraw, tokens
from torch import Tensor
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Where
from anyformer.core.model import Model
from anyformer.core.spec import PositionSpec, Site, spec
from anyformer.patterns.base import parse
from anyformer.positions.base import OnPairs
from anyformer.positions.rotary import Rotary

IMAGES = [
    ((3, 4), (2, 6), (1, 3)),
    ((4, 4), (3, 3), (1, 2)),
    ((1, 7), (5, 3), (5, 1)),
]  # height, width; 27 tokens a row


@spec
class Axial(PositionSpec):
    """Half of each head's channels turned by the first coordinate, half by the second."""

    def build(self, at: Site) -> "AxialPosition":
        return AxialPosition(at)


class AxialPosition(OnPairs):
    line: OnPairs

    def __init__(self, at: Site) -> None:
        super().__init__(at)
        self.hold(at, "line", Rotary(), head_size=(at.head_size or at.width) // 2, rank=1)

    def forward(self, x: Tensor, where: Where) -> Tensor:
        lines = (replace(where, coords=where.coords[..., axis : axis + 1]) for axis in range(2))
        return torch.cat([self.line(half, line) for half, line in zip(x.chunk(2, -1), lines, strict=True)], -1)


def packed() -> tuple[Tensor, Tensor]:
    """coords (B, T, 2) and document (B, T)."""
    places = [[yx for h, w in row for yx in product(range(h), range(w))] for row in IMAGES]
    sizes = [[i for i, (h, w) in enumerate(row) for _ in range(h * w)] for row in IMAGES]
    return torch.tensor(places), torch.tensor(sizes)


def model() -> Model:
    patterns = ("causal & documents", "causal & documents & (sinks(1) | window(4))")
    blocks = tuple(Block(mixer=Softmax(heads=3, pattern=parse(text), position=Axial())) for text in patterns)
    return redraw(build(Stack(blocks=blocks), labels=("document",), rank=2))


def test_lawful() -> None:
    coords, document = packed()
    assert_lawful(model(), tokens(3, 27), labels={"document": document}, coords=coords)


@torch.no_grad()
def test_packed_is_alone() -> None:
    ours, ids, (coords, document) = model(), tokens(3, 27), packed()
    whole = ours(ids, labels={"document": document}, coords=coords)
    for row, image in product(range(3), range(3)):
        mine = document[row] == image
        moved = coords[row : row + 1, mine] + torch.tensor([2, 5])  # only distances count
        alone = ours(ids[row : row + 1, mine], coords=moved)
        assert_close(alone[0], whole[row, mine], rtol=0, atol=1e-9)


def test_turns_by_both_axes() -> None:
    where, x = replace(Where.start(3, 27), coords=packed()[0]), torch.randn(3, 27, 2, 8, dtype=torch.float64)
    position = Axial().build(Site("", 16, heads=2, head_size=8))
    for axis, half in enumerate(position(x, where).chunk(2, -1)):
        z = torch.complex(*x.chunk(2, -1)[axis].chunk(2, -1))
        angle = where.coords[..., axis, None, None] * torch.tensor([1.0, 0.01], dtype=torch.float64)
        turned = z * torch.polar(torch.ones_like(angle), angle)
        assert_close(half, torch.cat([turned.real, turned.imag], -1))


def test_coordinates_must_be_given() -> None:
    with pytest.raises(ValueError, match="2 coordinates a token"):
        model()(tokens(3, 27))
