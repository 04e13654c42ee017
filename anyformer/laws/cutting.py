"""The law of state: however a text is cut into calls, the outputs are the same."""

from __future__ import annotations

import torch

from anyformer.laws.broken import agree
from anyformer.laws.case import Case, Way, seeded


@torch.no_grad()
def cut(case: Case) -> None:
    """However a text is cut into calls, the outputs are the same."""
    text = case.text(23)
    want = case.whole(text)
    ones = (case.first, *[1] * (text.length - case.first))
    for cuts in (ones, (text.length,), *(case.cuts(text.length, seed) for seed in range(3))):
        for way in (Way(), Way(32, inplace=True)):
            got, _ = case.feed(text, case.state(way), cuts)
            agree(got, want, f"calls of {cuts} tokens, {way}")


@torch.no_grad()
def ragged(case: Case) -> None:
    """Rows that advance at their own pace, padding anywhere in any call, give what each gives alone."""
    for seed in range(2):
        real = torch.rand(3, 29, generator=seeded(5, seed)) < 0.6
        real[:, : case.first] = True
        if case.first == 1:
            real[0, :11] = False  # a row that begins in a later call than the others
        text = case.text(29, seed=seed).laid(real)
        want = case.alone(text)
        for way in _ways(case, 29):
            got, _ = case.feed(text, case.state(way), case.cuts(29, seed))
            for index, alone in enumerate(want):
                agree(got[index, real[index]], alone, f"row {index}, {way}")


@torch.no_grad()
def remember(case: Case) -> None:
    """Nothing that is seen later is forgotten, in texts much longer than what is kept."""
    text = case.text(83)
    want = case.whole(text)
    for cuts in (case.cuts(text.length, 7, longest=13), case.cuts(text.length, 8, longest=3), (40, *[1] * 20, 23)):
        for way in _ways(case, 83):
            got, _ = case.feed(text, case.state(way), cuts)
            agree(got, want, f"calls of {cuts} tokens, {way}")


def _ways(case: Case, capacity: int) -> tuple[Way, ...]:
    """Growing and bounded, with and without slack, where the part gives any."""
    slack = 0 if "slack" in case.exempt else 3
    return Way(), Way(slack=slack), Way(capacity), Way(capacity, inplace=True, slack=slack)
