"""Going back: tokens that were taken back were never read."""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.core.state import ModelPast, State
from anyformer.laws.broken import agree, refuses
from anyformer.laws.case import Case, Text, Way, seeded, ways
from anyformer.laws.guess import VOCABULARY

SLACK = 4


@torch.no_grad()
def trim(case: Case) -> None:
    """Tokens that are trimmed were never read, over any number of trims that add up to no more than the slack."""
    text = case.text(70)
    want = case.whole(text)
    for seed in range(3):
        for way in ways(70, SLACK):
            _walk(case, text, want, seed, way)
    _, state = case.feed(text, case.state(Way(slack=SLACK)), (9,))
    refuses(lambda: case.model.trim(state, torch.tensor([9, 8, 9 - SLACK - 1])), "one more than the slack")


def _walk(case: Case, text: Text, want: Tensor, seed: int, way: Way) -> None:
    """Calls that end in wrong tokens, each trimmed to what was right, row by row."""
    generator = seeded(8, seed)
    first = case.first + seed * 4
    _, state = case.feed(text, case.state(way), (first,))
    at = torch.full((3,), first)
    high = at.clone()
    while int(at.max()) <= text.length - 8:
        length = int(torch.randint(1, 9, (), generator=generator))
        high = torch.maximum(high, at + length)
        least = (high - SLACK - at).clamp(min=0)  # what the slack lets go
        right = least + (torch.rand(3, generator=generator) * (length - least + 1)).long()
        call = text.take(at, length)
        wrong = torch.arange(length) >= right[:, None]
        call = Text(torch.where(wrong, (call.ids + 7) % VOCABULARY, call.ids), call.labels)
        out, state = case.model(call.ids, state, **call.given)
        for row in range(3):
            first, keep = int(at[row]), int(right[row])
            agree(out[row, :keep], want[row, first : first + keep], f"row {row} from {first}, {way}, walk {seed}")
        state = case.model.trim(state, right)
        at = at + right


@torch.no_grad()
def rewind(case: Case) -> None:
    """A state that is rewound to 0 is a new one."""
    text, other = case.text(20), case.text(20, seed=1)
    want = case.whole(other)
    for way in ways(40, SLACK):
        _, state = case.feed(text, case.state(way), (SLACK,))
        state = case.model.rewind(state, torch.zeros(3, dtype=torch.long))
        got, _ = case.feed(other, state, case.cuts(20, 0))
        agree(got, want, f"rewound to 0 after {SLACK} tokens, {way}")
        # layers forget everything at any time, whatever the slack, as memories ask of what they hold
        _, state = case.feed(text, case.state(way._replace(slack=0)), case.cuts(17, 1))
        zero = torch.zeros_like(state.past.clock)
        body = case.model.rewind_body(state.past.body, zero)
        past = ModelPast(body, zero, zero, zero, torch.zeros_like(state.past.texts))
        got, _ = case.feed(other, State(past, state.mark), case.cuts(20, 0))
        agree(got, want, f"layers rewound to 0 after 17 tokens, {way}")
