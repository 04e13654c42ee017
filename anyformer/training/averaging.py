"""Weights averaged: a running mean over the steps (Polyak & Juditsky 1992), or the mean of the last snapshots.

mean_t = d_t mean_(t-1) + (1 - d_t) w_t,  d_t = min(decay, t / (t + 9)),  mean_0 = w_0. So early on the mean is of about
the latest tenth of the steps, until it is as long as `decay` says. Vaswani et al. 2017 average their last 5 snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]  # a state_dict


def started(weights: Weights) -> dict[str, Tensor]:
    """The running mean before the first step."""
    return {name: tensor.clone() for name, tensor in weights.items()}


@torch.no_grad()
def follow(mean: Weights, weights: Weights, decay: float, step: int) -> None:
    """The running mean after a step, counted from 1, written in place. Whole numbers are copied."""
    kept = min(decay, step / (step + 9))
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            mean[name].lerp_(tensor, 1 - kept)
        else:
            mean[name].copy_(tensor)


def averaged(states: Iterable[Weights]) -> dict[str, Tensor]:
    """The mean of several, summed in float64, of which only one is held at a time. Whole numbers are the first's."""
    states = iter(states)
    first = next(states)
    sums = {name: tensor.to(torch.float64, copy=True) for name, tensor in first.items() if tensor.is_floating_point()}
    count = 1
    for state in states:
        count += 1
        for name, total in sums.items():
            total += state[name]
    return {name: (sums[name] / count).to(tensor.dtype) if name in sums else tensor for name, tensor in first.items()}


@contextmanager
def lent(model: nn.Module, weights: Weights) -> Iterator[None]:
    """Within it the model has these weights, after it its own again."""
    own = started(model.state_dict())
    model.load_state_dict(dict(weights))
    try:
        yield
    finally:
        model.load_state_dict(own)
