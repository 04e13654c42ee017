"""Averages of weights: closed forms, whole numbers, and a model that gets its own back."""

import pytest
import torch
from torch import Tensor, nn

from anyformer.core.errors import ConfigError
from anyformer.recipes.read import read
from anyformer.training.averaging import averaged, follow, lent, started

RECIPE = "model: {preset: tiny}\ndata: {kind: text, path: a.txt}\nbudget: {steps: 10}\n"


def states(count: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        {"w": torch.randn(3, 4, generator=generator, dtype=torch.float64), "n": torch.tensor(step)}
        for step in range(count)
    ]


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.999])
def test_the_running_mean_in_closed_form(decay: float) -> None:
    """mean_T = sum_t w_t (1 - d_t) d_(t+1) … d_T, and the first weights are what is left of 1."""
    steps = states(31)
    mean = started(steps[0])
    for number, weights in enumerate(steps[1:], 1):
        follow(mean, weights, decay, number)
    kept = [min(decay, (1 + t) / (10 + t)) for t in range(30)]  # as written by those who count the steps before
    want, rest = torch.zeros(3, 4, dtype=torch.float64), 1.0
    for d, weights in zip(reversed(kept), reversed(steps[1:]), strict=True):
        want, rest = want + rest * (1 - d) * weights["w"], rest * d
    torch.testing.assert_close(mean["w"], want + rest * steps[0]["w"], rtol=0, atol=1e-14)
    assert int(mean["n"]) == 30
    if decay == 0.999:  # of 30 steps, a mean of the last few: not the first weights, not the last
        assert (mean["w"] - steps[-1]["w"]).abs().mean() > 0.05 and rest < 1e-6


def test_the_running_mean_is_its_own_and_leaves_the_weights_alone() -> None:
    first, second = states(2)
    before = second["w"].clone()
    mean = started(first)
    follow(mean, second, 0.5, 1)
    assert torch.equal(second["w"], before) and torch.equal(first["w"], states(1)[0]["w"])


def test_the_mean_of_several_is_exact_where_float32_would_not_be() -> None:
    big = [{"w": torch.full((2,), 2.0**24), "n": torch.tensor(7)}] + [
        {"w": torch.ones(2), "n": torch.tensor(0)} for _ in range(4)
    ]
    kept = [state["w"].clone() for state in big]
    mean = averaged(iter(big))
    assert mean["w"].dtype == torch.float32 and int(mean["n"]) == 7
    assert torch.equal(mean["w"], torch.full((2,), (2.0**24 + 4) / 5))
    assert all(torch.equal(state["w"], weight) for state, weight in zip(big, kept, strict=True))
    double = states(3)
    torch.testing.assert_close(averaged(double)["w"], (double[0]["w"] + double[1]["w"] + double[2]["w"]) / 3)
    assert torch.equal(double[0]["w"], states(1)[0]["w"])


def test_a_model_gets_its_own_weights_back() -> None:
    model = nn.Linear(3, 2)
    own = started(model.state_dict())
    with pytest.raises(RuntimeError, match="halfway"), lent(model, {"weight": torch.ones(2, 3), "bias": torch.ones(2)}):
        assert model(torch.ones(3)).tolist() == [4, 4]
        raise RuntimeError("halfway")
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["snapshots.average=5"], "snapshots: average (5) needs as many to be kept; keep is 2"),
        (["training.ema=1"], "training.ema: should be less than 1"),
        (["snapshots.average=2", "training.ema=0.9"], "training.ema and snapshots.average are two ways"),
    ],
)
def test_what_cannot_be_averaged(sets: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(RECIPE, sets)
    assert says in str(error.value)


def test_what_can_be_averaged() -> None:
    assert read(RECIPE, ["snapshots.average=5", "snapshots.keep=5"]).snapshots.average == 5
    assert read(RECIPE, ["training.ema=0.999"]).training.ema == 0.999
