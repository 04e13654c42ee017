"""How a parameter or buffer is filled after it was built on the meta device."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Fill = Callable[[Tensor, Generator], None]


def normal(std: float) -> Fill:
    """Independent N(0, std²), drawn in float32 so that every dtype starts from the same numbers."""

    def fill(tensor: Tensor, generator: Generator) -> None:
        tensor.copy_(torch.empty(tensor.shape).normal_(0.0, std, generator=generator))

    return fill


def constant(value: float) -> Fill:
    """Every number is `value`."""

    def fill(tensor: Tensor, generator: Generator) -> None:
        tensor.fill_(value)

    return fill


zeros, ones = constant(0.0), constant(1.0)
