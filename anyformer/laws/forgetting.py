"""Going back: tokens that were taken back were never read."""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.core.state import ModelPast, State
from anyformer.laws.broken import agree, refuses
from anyformer.laws.case import Case, Text, seeded
from anyformer.laws.guess import VOCABULARY

SLACK = 4


@torch.no_grad()
def trim(case: Case) -> None:
    """Tokens that are trimmed were never read, over any number of trims that add up to no more than the slack."""
    text = case.text(70)
    want = case.whole(text)
    for seed in range(3):
        for options in ({}, {"capacity": 70}, {"capacity": 70, "inplace": False}):
            _walk(case, text, want, seed, options)
    _, state = case.feed(text, case.state(slack=SLACK), (9,))
    refuses(lambda: case.model.trim(state, torch.tensor([9, 8, 9 - SLACK - 1])), "one more than the slack")


def _walk(case: Case, text: Text, want: Tensor, seed: int, options: dict[str, int]) -> None:
    """Calls that end in wrong tokens, each trimmed to what was right, row by row."""
    generator = seeded(8, seed)
    first = case.first + seed * 4
    _, state = case.feed(text, case.state(slack=SLACK, **options), (first,))
    at = torch.full((3,), first)
    high = at.clone()
    while int(at.max()) < text.length - 10:
        length = int(torch.randint(1, 9, (), generator=generator))
        most = torch.minimum(torch.full_like(at, length), SLACK - (high - at - length).clamp(max=0))
        right = length - torch.minimum(
            (torch.rand(3, generator=generator) * (SLACK + 1)).long(),
            (SLACK - (high - at - length).clamp(min=0)).clamp(min=0, max=length),
        )
        del most
        call = text.take(at, length)
        wrong = torch.arange(length) >= right[:, None]
        call = Text(torch.where(wrong, (call.ids + 7) % VOCABULARY, call.ids), call.labels)
        out, state = case.model(call.ids, state, **call.given)
        for row in range(3):
            first, keep = int(at[row]), int(right[row])
            agree(out[row, :keep], want[row, first : first + keep], f"row {row} from {first}, {options}, walk {seed}")
        high = torch.maximum(high, at + length)
        state = case.model.trim(state, right)
        at = at + right


@torch.no_grad()
def rewind(case: Case) -> None:
    """A state that is rewound to 0 is a new one."""
    text, other = case.text(20), case.text(20, seed=1)
    want = case.whole(other)
    for options in ({}, {"capacity": 40}, {"capacity": 40, "inplace": False}):
        _, state = case.feed(text, case.state(slack=SLACK, **options), (SLACK,))
        state = case.model.rewind(state, torch.zeros(3, dtype=torch.long))
        got, _ = case.feed(other, state, case.cuts(20, 0))
        agree(got, want, f"rewound to 0 after {SLACK} tokens, {options}")
        # layers forget everything at any time, whatever the slack, as memories ask of what they hold
        _, state = case.feed(text, case.state(**options), case.cuts(17, 1))
        zero = torch.zeros_like(state.past.clock)
        body = case.model.rewind_body(state.past.body, zero)
        past = ModelPast(body, zero, zero, zero, torch.zeros_like(state.past.texts))
        got, _ = case.feed(other, State(past, state.mark), case.cuts(20, 0))
        agree(got, want, f"layers rewound to 0 after 17 tokens, {options}")
