"""Schedules: golden values by hand, where each begins, peaks and ends."""

import math
from itertools import pairwise

import pytest

from anyformer.core.roles import Schedule
from anyformer.core.spec import ScheduleSpec, from_dict
from anyformer.training.schedules.inverse_sqrt import InverseSqrt
from anyformer.training.schedules.linear import Linear
from anyformer.training.schedules.wsd import Wsd

ALL = ("constant", "cosine", "inverse_sqrt", "linear", "wsd")


def test_linear_by_hand() -> None:
    linear = Linear(warmup=4, final=0.2)
    assert [linear.scale(step, 24) for step in (0, 3, 4, 9, 14, 24, 99)] == pytest.approx(
        [1 / 5, 4 / 5, 1.0, 0.8, 0.6, 0.2, 0.2]
    )
    assert Linear(warmup=0).scale(9, 10) == pytest.approx(0.1)  # Devlin et al. 2019: to 0 at the end


def test_the_inverse_square_root_is_the_paper_s_rate() -> None:
    """Vaswani et al. 2017, equation 3, for their base model."""
    width, warmup = 512, 4000
    lr = width**-0.5 * warmup**-0.5
    schedule = InverseSqrt(warmup=warmup)
    assert lr == pytest.approx(6.9877e-4, rel=1e-4)
    for step in (1, 100, 3999, 4000, 4001, 100_000):
        paper = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert lr * schedule.scale(step - 1, 1e5) == pytest.approx(paper, rel=1e-12)
    rates = [schedule.scale(step, 1e5) for step in range(10_000)]
    assert max(rates) == rates[3999] == 1.0
    assert schedule.scale(15_999, 10) == pytest.approx(0.5)  # whatever the run's length


def test_wsd_by_hand() -> None:
    wsd = Wsd(warmup=3, decay=0.4, final=0.1, shape="linear")
    assert [wsd.scale(step, 100) for step in (0, 2, 3, 59, 60, 70, 80, 100, 120)] == pytest.approx(
        [0.25, 0.75, 1.0, 1.0, 1.0, 0.775, 0.55, 0.1, 0.1]
    )
    root = Wsd(warmup=3, decay=0.4, final=0.1)
    assert [root.scale(step, 100) for step in (60, 70, 100)] == pytest.approx([1.0, 0.55, 0.1])
    assert root.scale(62.5, 100) == pytest.approx(1 - 0.9 * math.sqrt(1 / 16))
    assert Wsd(warmup=8, decay=1.0, shape="linear").scale(9, 10) == pytest.approx(0.5)  # decays after the warm-up
    assert Wsd(warmup=8, decay=1.0).scale(9, math.inf) == 1.0


@pytest.mark.parametrize("kind", ALL)
def test_every_schedule_stays_above_0_and_peaks_at_1(kind: str) -> None:
    schedule: ScheduleSpec = from_dict(Schedule, {"kind": kind, "warmup": 10})
    rates = [schedule.scale(step, 200) for step in range(200)]
    assert max(rates) == 1.0 and min(rates) > 0
    peak = rates.index(1.0)
    assert peak in (9, 10)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("total", [math.inf, 3.0, 0.0])
def test_runs_whose_length_is_unknown_or_shorter_than_the_warm_up(kind: str, total: float) -> None:
    """Unknown: a budget in seconds before the first step."""
    schedule: ScheduleSpec = from_dict(Schedule, {"kind": kind, "warmup": 10})
    assert all(0 <= schedule.scale(step, total) <= 1 for step in (0, 1, 9, 10, 11, 5000))
    assert 0 < schedule.scale(0, total) <= 1
