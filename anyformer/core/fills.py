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


def uniform(limit: float) -> Fill:
    """Independent U(-limit, limit), drawn in float32."""

    def fill(tensor: Tensor, generator: Generator) -> None:
        tensor.copy_(torch.empty(tensor.shape).uniform_(-limit, limit, generator=generator))

    return fill


def times(fill: Fill, gain: float) -> Fill:
    """A fill whose values are multiplied by `gain`."""

    def scaled(tensor: Tensor, generator: Generator) -> None:
        fill(tensor, generator)
        tensor.mul_(gain)

    return scaled


def constant(value: float) -> Fill:
    """Every number is `value`."""

    def fill(tensor: Tensor, generator: Generator) -> None:
        tensor.fill_(value)

    return fill


zeros, ones = constant(0.0), constant(1.0)
small = normal(0.02)  # of tables of vectors, as in GPT-2 and BERT
