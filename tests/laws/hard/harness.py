"""What the hard cases share: a real model around one body, weights that hide nothing, and the laws that all must obey.

A case defines its mechanism in the test file as an ordinary spec and Layer, builds a model, and asks `assert_lawful`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.testing import assert_close

from anyformer.architectures.decoder import Decoder
from anyformer.core.context import Source
from anyformer.core.model import Model
from anyformer.core.spec import LayerSpec
from anyformer.core.state import State

Sources = Mapping[str, Source]
M = TypeVar("M", bound=torch.nn.Module)
WIDTH, VOCABULARY = 24, 29
CLOSE = {"rtol": 0.0, "atol": 1e-9}


def build(body: LayerSpec, **model_fields: Any) -> Model:
    """A decoder in float64 with its initial weights."""
    fields = {"width": WIDTH, "vocabulary": VOCABULARY, **model_fields}
    return Decoder(body=body, **fields).build(dtype=torch.float64)


@torch.no_grad()
def redraw(model: M, std: float = 0.5, seed: int = 0) -> M:
    """The same model, every weight drawn large: small initial weights hide wrong formulas."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.normal_(std=std, generator=generator)
    return model


def tokens(batch: int = 3, length: int = 23, seed: int = 0) -> Tensor:
    """ids (B, T)."""
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def cuttings(length: int) -> list[tuple[int, ...]]:
    """Ways to cut `length` tokens into calls: whole, one by one, and uneven."""
    ways = [(length,), (1,) * length, (7, 1, length - 8), (2, 3, 2, 2, length - 9), (length - 1, 1)]
    return [way for way in ways if min(way) > 0]


def cut(model: Model, ids: Tensor, cuts: Sequence[int], state: State | None = None, **call: Any) -> Tensor:
    """Outputs of `ids` given in calls of these many tokens; what `call` holds (B, T, …) is cut along."""
    state = model.init_state(ids.shape[0]) if state is None else state
    outs, ends = [], [sum(cuts[:i]) for i in range(len(cuts) + 1)]
    for start, end in pairwise(ends):
        here = {name: _along(value, lambda x, a=start, b=end: x[:, a:b]) for name, value in call.items()}
        out, state = model(ids[:, start:end], state, **here)
        outs.append(out)
    return torch.cat(outs, 1)


def assert_lawful(model: Model, ids: Tensor, *, slack: int = 3, sources: Sources | None = None, **call: Any) -> None:
    """Cut = whole in every kind of state, no future, padding, forgetting, gradients across calls.

    call: what else goes with each token, (B, T, …). slack: tokens to forget; 0 leaves that law out.
    """
    assert_cut_is_whole(model, ids, sources, **call)
    assert_no_future(model, ids, sources, **call)
    assert_padding_is_nothing(model, ids, sources, **call)
    if slack:
        assert_trimmed_is_never_read(model, ids, slack, sources, **call)
    assert_gradients_cross_calls(model, ids, sources, **call)


@torch.no_grad()
def assert_cut_is_whole(model: Model, ids: Tensor, sources: Sources | None = None, **call: Any) -> None:
    """In a state that grows, one with room, and one that is written in place."""
    batch, length = ids.shape
    whole = model(ids, sources=sources, **call)
    for cuts in cuttings(length):
        for capacity, inplace in ((None, False), (length + 2, False), (length + 2, True)):
            state = model.init_state(batch, sources=sources, capacity=capacity, inplace=inplace)
            message = f"calls of {cuts}, capacity {capacity}, in place {inplace}"
            _assert_equal(cut(model, ids, cuts, state, **call), whole, message)


@torch.no_grad()
def assert_no_future(model: Model, ids: Tensor, sources: Sources | None = None, **call: Any) -> None:
    """Tokens that come later change nothing."""
    whole = model(ids, sources=sources, **call)
    for at in range(1, ids.shape[1]):
        other = torch.cat([ids[:, :at], (ids[:, at:] + 5) % VOCABULARY], 1)
        _assert_equal(model(other, sources=sources, **call)[:, :at], whole[:, :at], f"tokens from {at} on were changed")


@torch.no_grad()
def assert_padding_is_nothing(model: Model, ids: Tensor, sources: Sources | None = None, **call: Any) -> None:
    """Rows of several lengths, the padding on the left, whole and cut: every row as it is alone."""
    batch, length = ids.shape
    whole = model(ids, sources=sources, **call)
    pads = [(4 * row) % length for row in range(batch)]

    def shifted(x: Tensor) -> Tensor:
        return torch.stack([row.roll(pad, 0) for row, pad in zip(x, pads, strict=True)])

    call = {name: _along(value, shifted) for name, value in call.items()}
    call["real"] = torch.arange(length) >= torch.tensor(pads)[:, None]
    outs = [model(shifted(ids), sources=sources, **call)]
    for cuts in cuttings(length):
        outs.append(cut(model, shifted(ids), cuts, model.init_state(batch, sources=sources), **call))
    for out in outs:
        for row, pad in enumerate(pads):
            _assert_equal(out[row, pad:], whole[row, : length - pad], f"row {row} behind {pad} of padding")


@torch.no_grad()
def assert_trimmed_is_never_read(
    model: Model, ids: Tensor, slack: int, sources: Sources | None = None, **call: Any
) -> None:
    """`slack` wrong tokens, given after every prefix and forgotten again."""
    batch, length = ids.shape
    whole = model(ids, sources=sources, **call)
    wrong = (ids + 7) % VOCABULARY
    for at in range(0, length - slack, 3):
        for capacity in (None, length + slack):
            state = model.init_state(batch, sources=sources, capacity=capacity, slack=slack)
            for given, start, end in ((ids, 0, at), (wrong, at, at + slack)):
                if end > start:
                    here = {name: _along(value, lambda x, a=start, b=end: x[:, a:b]) for name, value in call.items()}
                    _, state = model(given[:, start:end], state, **here)
            state = model.trim(state, torch.zeros(batch, dtype=torch.long))
            rest = {name: _along(value, lambda x, a=at: x[:, a:]) for name, value in call.items()}
            out = cut(model, ids[:, at:], (1, length - at - 1), state, **rest)
            _assert_equal(out, whole[:, at:], f"{slack} tokens forgotten after {at}, capacity {capacity}")


def assert_gradients_cross_calls(model: Model, ids: Tensor, sources: Sources | None = None, **call: Any) -> None:
    """The gradient of several calls is the gradient of one."""
    batch, length = ids.shape
    cuts = (3, length // 2 - 2, 1, length - length // 2 - 2)
    whole = gradients(model, lambda: model(ids, sources=sources, **call))
    parts = gradients(model, lambda: cut(model, ids, cuts, model.init_state(batch, sources=sources), **call))
    for name in whole:
        assert_close(parts[name], whole[name], rtol=1e-8, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


def gradients(model: Model, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Of the mean square of what `run` gives; zero where a weight had no part in it."""
    parameters = dict(model.named_parameters())
    wanted = list(parameters.values())
    found = torch.autograd.grad(run().square().mean(), wanted, allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(parameter) if grad is None else grad
        for (name, parameter), grad in zip(parameters.items(), found, strict=True)
    }


def _along(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return {name: change(x) for name, x in value.items()} if isinstance(value, Mapping) else change(value)


def _assert_equal(ours: Tensor, theirs: Tensor, message: str) -> None:
    assert_close(ours, theirs, **CLOSE, msg=lambda m: f"{message}: {m}")
