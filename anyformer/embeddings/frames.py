"""Whisper's entrance for sound (Radford et al. 2022): x = gelu(W_2 * gelu(W_1 * s)), two convolutions over frames.

W_1 and W_2 read three frames each; W_2 takes steps of two, so that half as many vectors come out.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from anyformer.core.fills import zeros
from anyformer.core.layer import Part
from anyformer.core.modality import Modality
from anyformer.core.spec import ModalitySpec, Site, Size, spec
from anyformer.positions.base import on_a_line

KERNEL, STEP = 3, 2


@spec
class Frames(ModalitySpec):
    """Frames of a spectrogram, through two convolutions to half as many vectors (Whisper; Radford et al. 2022).

    channels: numbers in a frame, Whisper's being 80 or 128 log-mel energies.
    """

    channels: Size = 80

    @classmethod
    def examples(cls) -> tuple[Frames, ...]:
        return (cls(channels=5),)

    def build(self, at: Site) -> FrameEmbedding:
        return FrameEmbedding(self, at)


class FrameEmbedding(Modality):
    """(B, M, frames) -> (B, ceil(frames / 2), C)."""

    def __init__(self, spec: Frames, at: Site) -> None:
        super().__init__(at)
        on_a_line(at)
        self.channels = spec.channels
        self.first = Convolution(at.at("first"), spec.channels, 1)
        self.second = Convolution(at.at("second"), at.width, STEP)

    def count(self, x: Tensor) -> int:
        if x.dim() != 3 or x.shape[1] != self.channels or not x.is_floating_point() or not x.numel():
            raise ValueError(
                f"{self.path}: sounds must be numbers (B, {self.channels}, frames), B and frames at least 1; came "
                f"{x.dtype} {tuple(x.shape)}"
            )
        return -(-x.shape[2] // STEP)

    def coords(self, x: Tensor) -> Tensor | None:
        return None

    def shape(self, tokens: int) -> tuple[int, ...]:
        return self.channels, STEP * tokens

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.second(F.gelu(self.first(x)))).mT


class Convolution(Part):
    """weight: (C, M, 3); bias: (C,). Beyond both ends of x there are zeros."""

    weight: Tensor
    bias: Tensor

    def __init__(self, at: Site, channels: int, step: int) -> None:
        super().__init__(at)
        self.step = step
        sizes = {"C": at.width, "M": channels, "K": KERNEL}
        self.param("weight", ("C", "M", "K"), sizes, at.initial.fill(at.width, channels * KERNEL, 1))
        self.param("bias", ("C",), sizes, zeros)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, T) -> (B, C, T / step)."""
        return F.conv1d(x.to(self.weight.dtype), self.weight, self.bias, self.step, padding=KERNEL // 2)
