"""Patches of images (ViT; Dosovitskiy et al. 2021), row by row: x_n = W p_n + b + e_n, p_n the pixels of patch n.

In front stand learned vectors: a class token; DeiT's distillation token (Touvron et al. 2021), both with an e of their
own; registers (Darcet et al. 2024), without. For an image of another size the grid of the e_n is resized (bicubic).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import small, zeros
from anyformer.core.linear import Linear
from anyformer.core.modality import Modality
from anyformer.core.spec import ModalitySpec, Site, Size, Whole, spec


@spec
class Patches(ModalitySpec):
    """A linear map of each square patch of an image (ViT; Dosovitskiy et al. 2021).

    size: of a patch, in pixels. image: height and width that the positions are made for, one number for squares; others
    can enter, and a border that fills no patch is left out. channels: of a pixel. registers: how many. mask_token: a
    vector in place of hidden patches, which files of DINOv2 hold; here no patch is hidden. positions: learned ones.
    """

    size: Size
    image: Size | tuple[Size, Size]
    channels: Size = 3
    bias: bool = True
    class_token: bool = True
    distillation_token: bool = False
    registers: Whole = 0
    mask_token: bool = False
    positions: bool = True

    @classmethod
    def examples(cls) -> tuple[Patches, ...]:
        tokens = cls(size=3, image=(9, 13), channels=2, distillation_token=True, registers=2, mask_token=True)
        return tokens, cls(size=2, image=7, bias=False, class_token=False, positions=False)

    def build(self, at: Site) -> PatchEmbedding:
        return PatchEmbedding(self, at)


class PatchEmbedding(Modality):
    """proj: (C, K P P), a pixel's channels first; position: (F + N, C), of F tokens in front and N patches, or None.

    With one coordinate vectors stand in a row; with two, a patch at its row and column, what is no patch at (-1, -1).
    """

    position: Tensor | None

    def __init__(self, spec: Patches, at: Site) -> None:
        super().__init__(at)
        if at.rank > 2:
            raise ValueError(f"{at.path}: patches have one or two coordinates; the model declares rank {at.rank}")
        self.size, self.channels, self.rank = spec.size, spec.channels, at.rank
        self.image = spec.image if isinstance(spec.image, tuple) else (spec.image, spec.image)
        self.grid = rows, columns = self.cells(*self.image)
        sizes = {"C": at.width, "K": spec.channels, "P": spec.size, "one": 1, "R": spec.registers}
        self.proj = Linear(at.at("proj"), "C", "K P P", sizes, spec.bias)
        declared = {"class_token": spec.class_token, "distillation_token": spec.distillation_token}
        self.placed = tuple(name for name, here in declared.items() if here)
        for name in self.placed:
            self.param(name, ("one", "C"), sizes, small)
        self.front = self.placed
        if spec.registers:
            self.param("registers", ("R", "C"), sizes, small)
            self.front = *self.placed, "registers"
        if spec.mask_token:
            self.param("mask_token", ("one", "C"), sizes, zeros)
        if spec.positions:
            self.param("position", ("L", "C"), {**sizes, "L": len(self.placed) + rows * columns}, small)
        else:
            self.register_parameter("position", None)

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches."""
        if min(height, width) < self.size:
            raise ValueError(f"{self.path}: an image of {height} x {width} has no patch of {self.size} x {self.size}")
        return height // self.size, width // self.size

    def count(self, x: Tensor) -> int:
        if x.dim() != 4 or x.shape[1] != self.channels or not x.is_floating_point() or not x.shape[0]:
            raise ValueError(
                f"{self.path}: images must be numbers (B, {self.channels}, height, width), B at least 1; came "
                f"{x.dtype} {tuple(x.shape)}"
            )
        rows, columns = self.cells(*x.shape[2:])
        return sum(len(self.get_parameter(name)) for name in self.front) + rows * columns

    def coords(self, x: Tensor) -> Tensor | None:
        if self.rank == 1:
            return None
        rows, columns = (torch.arange(count, device=x.device) for count in self.cells(*x.shape[2:]))
        cells = torch.cartesian_prod(rows, columns)  # (N, 2)
        beside = cells.new_full((self.count(x) - len(cells), 2), -1)
        return torch.cat([beside, cells]).expand(x.shape[0], -1, -1)

    def shape(self, tokens: int) -> tuple[int, ...]:
        return self.channels, *self.image

    def forward(self, x: Tensor) -> Tensor:
        cells = self.cells(*x.shape[2:])
        patches = self.proj(self.cut(x, cells))
        front: list[Tensor] = [self.get_parameter(name) for name in self.front]
        if self.position is not None:
            own = len(self.placed)
            patches = patches + self.resized(self.position[own:], cells)
            front[:own] = [token + place for token, place in zip(front, self.position[:own], strict=False)]
        return torch.cat([*(token.to(patches.dtype).expand(x.shape[0], -1, -1) for token in front), patches], 1)

    def cut(self, x: Tensor, cells: tuple[int, int]) -> Tensor:
        """(B, K, height, width) -> (B, N, K P P)."""
        (rows, columns), size = cells, self.size
        x = x[..., : rows * size, : columns * size].to(self.proj.weight.dtype)
        return (
            x.unflatten(3, (columns, size))
            .unflatten(2, (rows, size))
            .permute(0, 2, 4, 1, 3, 5)
            .flatten(3)
            .flatten(1, 2)
        )

    def resized(self, table: Tensor, cells: tuple[int, int]) -> Tensor:
        """The patches' positions (N, C) for a grid of other cells."""
        if cells == self.grid:
            return table
        exact = table.to(torch.promote_types(table.dtype, torch.float32))
        grid = exact.T.unflatten(1, self.grid)[None]  # (1, C, rows, columns)
        return F.interpolate(grid, cells, mode="bicubic")[0].flatten(1).T.to(table.dtype)
