"""A mixer of ours against an attention module of `transformers` with the same weights: outputs and all gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anyformer.core.context import Context
from anyformer.core.layer import Layer
from oracles.published import exact


def turns(rotary: nn.Module, x: Tensor) -> Any:
    """What a model of theirs computes once for all of its layers, for the positions 0 … T-1."""
    return rotary.double()(x, torch.arange(x.shape[1])[None].expand(x.shape[0], -1))


def mask(length: int, window: int | None = None) -> Tensor:
    """(1, 1, T, T), added to their scores: causal, and only the nearest `window` tokens."""
    time = torch.arange(length)
    back = time[:, None] - time
    seen = (back >= 0) & (back < (window or length))
    return torch.zeros(length, length).double().masked_fill(~seen, -torch.inf)[None, None]


def assert_same(
    theirs: nn.Module, ours: Layer, names: Mapping[str, str], x: Tensor, call: Callable[[Tensor], Tensor]
) -> None:
    """names: how their names of parameters begin, and ours, of all of them. call: what theirs makes of x (B, T, C)."""
    starts = {name: next(s for s in names if name.startswith(s)) for name in dict(theirs.named_parameters())}
    pairs = {name: name.replace(start, names[start], 1) for name, start in starts.items()}
    state = theirs.state_dict()
    ours.load_state_dict({pairs[name]: tensor for name, tensor in state.items()})
    results = []
    with exact():
        for module, forward in ((theirs, call), (ours, lambda x: ours(x, Context.start(*x.shape[:2]))[0])):
            into, weights = x.clone().requires_grad_(), dict(module.named_parameters())
            out = forward(into)
            grown = (out * torch.linspace(-1, 2, out.numel()).double().view_as(out)).sum()
            into_grad, *grads = torch.autograd.grad(grown, [into, *weights.values()])
            results.append({"out": out, "x": into_grad, **dict(zip(weights, grads, strict=True))})
    for name, value in results[0].items():
        assert_close(
            results[1][pairs.get(name, name)], value, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )
