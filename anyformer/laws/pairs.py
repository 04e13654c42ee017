"""Patterns: the predicate is one of pairs, and what it says about itself without looking at tokens is true."""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.core.clock import clock
from anyformer.core.context import Where
from anyformer.core.tree import tree_map
from anyformer.laws.broken import agree, hold
from anyformer.laws.case import Case
from anyformer.patterns.base import Ahead, Pattern


def sees(case: Case) -> None:
    """A pair by itself meets exactly when it meets among all others, and the labels that are read are declared."""
    pattern, where = _pattern(case), texts(case, 14)
    got = pattern.sees(where.queries, where.keys)
    hold(got.dtype == torch.bool and got.shape == (3, 14, 14), f"sees gave {got.dtype} {tuple(got.shape)}")
    want = torch.zeros_like(got)
    for i in range(14):
        for j in range(14):
            q, k = (tree_map(lambda x, at=at: x[:, at : at + 1], where) for at in (i, j))
            want[:, i, j] = pattern.sees(q.queries, k.keys)[:, 0, 0]
    agree(got.long(), want.long(), "pairs (row, query, key), together and one by one")


def reach(case: Case) -> None:
    """Every past key that is seen is within `reach`; `ahead` and `keeps` never promise too much."""
    pattern, where = _pattern(case), texts(case, 60)
    seen = pattern.sees(where.queries, where.keys)
    now, then = where.time[:, :, None], where.time[:, None]
    first, last = pattern.reach("start" in where.labels)
    within = (then < first) | (then > now - last) if last != float("inf") else torch.ones_like(seen)
    _none(seen & (then <= now) & ~within, f"reach is {(first, last)}, yet seen")
    if pattern.ahead() == Ahead.NONE:
        _none(seen & (then > now), "ahead is NONE, yet seen")
    if pattern.ahead() == Ahead.PREFIX:
        _none(seen & (then > now) & ~(where.labels["prefix"] > 0)[:, None], "ahead is PREFIX, yet seen outside of it")
    for at in range(60):
        keeps = pattern.keeps(where, where.time[:, at : at + 1])
        kept = keeps if isinstance(keeps, Tensor) else torch.full_like(where.time, keeps, dtype=torch.bool)
        _none(seen[:, at:, :at] & ~kept[:, None, :at], f"not kept at {at}, yet seen")


def _none(wrong: Tensor, what: str) -> None:
    if bool(wrong.any()):
        row, query, key = (int(i) for i in wrong.nonzero()[0])
        hold(False, f"{what}: row {row}, query {query}, key {key}")


def _pattern(case: Case) -> Pattern:
    assert isinstance(case.part, Pattern)
    return case.part


def texts(case: Case, length: int) -> Where:
    """Where the tokens of random texts are, with the labels that the model declares; packed where one is `document`."""
    text = case.text(length)
    return clock(text.ids, None, text.labels, None, None)[0]
