"""Causality: what can be cut into calls cannot have looked ahead."""

from __future__ import annotations

import torch

from anyformer.laws.broken import agree, hold
from anyformer.laws.case import Case
from anyformer.laws.guess import VOCABULARY


@torch.no_grad()
def future(case: Case) -> None:
    """No output sees its future: other tokens later on change nothing before them."""
    case.state()  # a part that looks ahead says so by refusing
    text = case.text(23)
    want = case.whole(text)
    for at in range(case.first, text.length):
        ids = text.ids.clone()
        ids[:, at:] = (ids[:, at:] + 5) % VOCABULARY
        got = case.model(ids, **text.given, sources=case.sources())
        agree(got[:, :at], want[:, :at], f"other tokens from {at} on")
        hold(not torch.equal(got[:, at:], want[:, at:]), f"other tokens from {at} on changed nothing after them either")
