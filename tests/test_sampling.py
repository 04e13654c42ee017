"""Sampling: what is drawn has the distribution that the logits, the penalties and the cuts say."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from generating import GREEDY, decoder, even, next_logits
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from anyformer.core.errors import NumericalStop
from anyformer.generation.generate import token_rows
from anyformer.generation.sampling import Sampling, Seen

LOGITS = torch.tensor([1.0, -0.5, 2.0, 0.3, 0.3, -4.0, 1.5])
READ, WRITTEN = [1, 2, 2], [2, 0, 5, 0, 0]


def seen(prompt: list[int], written: list[int], vocabulary: int = 7) -> Seen:
    known = Seen.of([prompt], vocabulary, torch.device("cpu"))
    for token in written:
        known.write(torch.tensor([token]))
    return known


def reference(sampling: Sampling, logits: np.ndarray, prompt: list[int], written: list[int]) -> np.ndarray:
    """Penalties, temperature, top-k, top-p and min-p, one token at a time."""
    counts, penalised = Counter(written), []
    for token, logit in enumerate(logits.tolist()):
        if token in {*prompt, *written}:
            logit = logit * sampling.repetition_penalty if logit < 0 else logit / sampling.repetition_penalty
        if counts[token]:
            logit -= sampling.presence_penalty + counts[token] * sampling.frequency_penalty
        penalised.append(logit)
    scores = np.exp(np.array(penalised) / sampling.temperature)
    order = sorted(range(len(scores)), key=lambda token: -scores[token])
    kept = order[: sampling.top_k]
    total, reached, result = sum(scores[token] for token in kept), 0.0, np.zeros(len(scores))
    for token in kept:
        if sampling.top_p is None or reached < sampling.top_p:
            result[token] = scores[token] / total
        reached += scores[token] / total
    result[result < (sampling.min_p or 0) * result.max()] = 0
    return result / result.sum()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 2.5},
        {"top_k": 3},
        {"top_k": 99},
        {"top_p": 0.7},
        {"top_p": 0.95, "top_k": 5, "temperature": 1.7},
        {"min_p": 0.2},
        {"min_p": 0.5, "temperature": 2.5, "top_k": 6},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.4, "temperature": 2.0},
        {"presence_penalty": 1.1},
        {"frequency_penalty": 0.6},
        {"presence_penalty": -0.7, "frequency_penalty": 0.4, "repetition_penalty": 1.3, "top_p": 0.9, "min_p": 0.1},
    ],
    ids=str,
)
def test_draws_have_the_distribution(fields: dict[str, Any]) -> None:
    sampling, draws = Sampling(**fields), 20_000
    want, known = reference(sampling, LOGITS.double().numpy(), READ, WRITTEN), seen(READ, WRITTEN)
    np.testing.assert_allclose(sampling.probabilities(LOGITS[None], known)[0].numpy(), want, rtol=1e-6)
    die = Generator().manual_seed(11)
    many = LOGITS.expand(1000, -1)
    drawn = torch.cat([sampling.draw(many, [die] * 1000, known) for _ in range(draws // 1000)])
    counts = np.bincount(drawn.numpy(), minlength=7)
    assert not counts[want == 0].any()
    assert chi_square(counts, draws * want) < 30  # 6 degrees of freedom: beyond it once in 25,000 tries


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    possible = expected > 0
    return float(((counts - expected)[possible] ** 2 / expected[possible]).sum())


def test_a_models_texts_have_the_softmaxs_distribution() -> None:
    """All texts of two tokens, drawn as samples of one prompt, and as rows of their own."""
    model, draws, sampling = decoder(vocabulary=5), 4000, Sampling(temperature=4)
    prompt = [3, 0, 2]
    first = (next_logits(model, prompt, []) / 4).softmax(0)
    pairs = torch.stack([p * (next_logits(model, prompt, [token]) / 4).softmax(0) for token, p in enumerate(first)])
    expected = draws * pairs.flatten().numpy()
    assert expected.min() > 5  # else the statistic would mean nothing
    rows = token_rows(model, even([prompt], 2), sampling, samples=draws, seed=1)
    one, two = (np.array(tokens) for tokens in rows)
    counts = np.bincount(5 * one + two, minlength=25)
    assert chi_square(counts, expected) < 59  # 24 degrees of freedom: beyond it once in 10,000 tries
    alone = token_rows(model, even([prompt] * 7, 2), sampling, seed=1)
    assert [list(tokens) for tokens in alone] == [one[:7].tolist(), two[:7].tolist()]


def test_the_penalties_by_hand() -> None:
    """Repetition divides what is above 0 and multiplies what is below, once; the others count what was written."""
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0, 3.0]])
    known = seen([0, 0, 1], [2, 3, 3], vocabulary=5)
    assert Sampling(repetition_penalty=2.0).penalised(logits, known).tolist() == [[1, -4, 1, -4, 3]]
    assert Sampling(presence_penalty=0.5).penalised(logits, known).tolist() == [[2, -2, 1.5, -2.5, 3]]
    assert Sampling(frequency_penalty=0.5).penalised(logits, known).tolist() == [[2, -2, 1.5, -3, 3]]
    both = Sampling(repetition_penalty=2.0, presence_penalty=0.5)
    assert both.penalised(logits, known).tolist() == [[1, -4, 0.5, -4.5, 3]]
    assert torch.equal(Sampling().penalised(logits, known), logits)


def test_greedy_takes_the_penalised_likeliest() -> None:
    known = seen([], [2])
    assert int(Sampling(greedy=True, presence_penalty=1.0).draw(LOGITS[None], [Generator()], known)) == 6
    assert int(Sampling(greedy=True, presence_penalty=0.4).draw(LOGITS[None], [Generator()], known)) == 2


def test_rows_are_penalised_by_their_own_texts() -> None:
    """Greedy under each penalty, against the definition; ragged, so that the rows differ."""
    model, prompts = decoder(), [[3, 0, 2], [7], [5, 5, 11, 1]]
    plain = list(zip(*token_rows(model, even(prompts, 12), GREEDY), strict=True))
    for sampling in (
        Sampling(greedy=True, repetition_penalty=1.8),
        Sampling(greedy=True, presence_penalty=1.5),
        Sampling(greedy=True, frequency_penalty=0.8),
    ):
        rows = list(zip(*token_rows(model, even(prompts, 12), sampling), strict=True))
        for prompt, row in zip(prompts, rows, strict=True):
            written: list[int] = []
            for _ in range(12):
                logits = next_logits(model, prompt, written).numpy()
                written.append(int(reference(sampling, logits, prompt, written).argmax()))
            assert list(row) == written
        assert rows != plain


def test_the_edges_of_sampling() -> None:
    likeliest = torch.nn.functional.one_hot(torch.tensor([2]), 7).double()
    for sampling in (
        GREEDY,
        Sampling(temperature=0),
        Sampling(temperature=1e-30),
        Sampling(temperature=5e-324),
        Sampling(top_k=1),
        Sampling(top_p=1e-300),
        Sampling(min_p=1),
    ):
        assert torch.equal(sampling.probabilities(LOGITS[None]), likeliest)
    same = torch.softmax(LOGITS[None].double(), -1)
    for sampling in (
        Sampling(top_p=1.0),
        Sampling(top_k=7),
        Sampling(top_k=10**9),
        Sampling(min_p=0),
        Sampling(presence_penalty=3, frequency_penalty=2, repetition_penalty=5),
    ):
        torch.testing.assert_close(sampling.probabilities(LOGITS[None]), same)
        torch.testing.assert_close(sampling.probabilities(LOGITS[None], seen([], [])), same)
    masked = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert Sampling(top_k=2).probabilities(masked).tolist() == [[0, 1, 0]]
    assert Sampling(repetition_penalty=2).probabilities(masked, seen([0], [1], 3)).tolist() == [[0, 1, 0]]
    huge = Sampling(temperature=1e300).probabilities(LOGITS[None])
    torch.testing.assert_close(huge, torch.full_like(huge, 1 / 7))
    with pytest.raises(NumericalStop):
        Sampling().probabilities(torch.full((1, 3), -torch.inf))


def test_min_p_keeps_what_has_its_part_of_the_likeliest() -> None:
    """0.5, 0.25, 0.125, 0.125: of the likeliest 1, 1/2, 1/4, 1/4, exactly."""
    logits = torch.tensor([[3.0, 2.0, 1.0, 1.0]]) * np.log(2)
    assert Sampling(min_p=0.25001).probabilities(logits).gt(0).tolist() == [[True, True, False, False]]
    assert Sampling(min_p=0.2499).probabilities(logits).gt(0).tolist() == [[True] * 4]
    rows = torch.cat([logits, torch.zeros(1, 4)])  # each by its own likeliest
    assert Sampling(min_p=0.6).probabilities(rows).gt(0).tolist() == [[True, False, False, False], [True] * 4]
    # after top-p, whose sum it must not change: 0.5 and 0.25 reach 0.7
    kept = Sampling(min_p=0.3, top_p=0.7).probabilities(logits)
    torch.testing.assert_close(kept, torch.tensor([[2 / 3, 1 / 3, 0, 0]], dtype=torch.float64))


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=8),
    st.integers(0, 2**32),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(0.1, 10),
)
def test_nothing_impossible_is_drawn(
    logits: list[float], seed: int, top_p: float, min_p: float, repetition: float
) -> None:
    sampling = Sampling(top_p=top_p, min_p=min_p, repetition_penalty=repetition)
    row, known = torch.tensor([logits]), seen([0], [], len(logits))
    token = int(sampling.draw(row, [Generator().manual_seed(seed)], known))
    assert sampling.probabilities(row, known)[0, token] > 0


@pytest.mark.parametrize("thrown", [0.0, 1 - 2**-53])
def test_the_ends_of_the_die_draw_what_can_be_drawn(thrown: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(thrown, dtype=torch.float64))
    logits = torch.tensor([[-torch.inf, *[0.1] * 7, -torch.inf]])
    assert Sampling().draw(logits, [Generator()]).tolist() == [1 if thrown == 0 else 7]


@pytest.mark.parametrize(
    "fields",
    [
        *({"temperature": value} for value in (-1, float("nan"), float("inf"))),
        *({"top_k": value} for value in (0, -3)),
        *({"top_p": value} for value in (0, -0.1, 1.1, float("nan"))),
        *({"min_p": value} for value in (-0.1, 1.1, float("nan"))),
        *({"repetition_penalty": value} for value in (0, -1, float("nan"), float("inf"))),
        *({"presence_penalty": value} for value in (float("nan"), float("inf"))),
        *({"frequency_penalty": value} for value in (float("nan"), float("-inf"))),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(fields))} must be .*; came"):
        Sampling(**fields)
