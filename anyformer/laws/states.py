"""States: how they are kept and written makes no difference, and misuse is refused."""

from __future__ import annotations

import torch

from anyformer.core.state import State
from anyformer.laws.broken import agree, hold, refuses
from anyformer.laws.case import Case, Text, Way, ways
from anyformer.laws.cases import parts_in
from anyformer.laws.guess import VOCABULARY
from anyformer.patterns.base import Pattern


@torch.no_grad()
def grow(case: Case) -> None:
    """A growing state, bounded ones that are functional and bounded ones that are written in place are the same."""
    text = case.text(31)
    for seed in range(2):
        cuts = case.cuts(31, seed)
        want, _ = case.feed(text, case.state(), cuts)
        for way in (*ways(31)[1:], *ways(64)[1:]):
            got, _ = case.feed(text, case.state(way), cuts)
            agree(got, want, f"{way}, calls of {cuts}")


@torch.no_grad()
def inplace(case: Case) -> None:
    """Writing in place gives what functional writing gives, and functional writing leaves the old state as it was."""
    text = case.text(19)
    cuts = case.cuts(12, 1)
    kept = case.feed(text, case.state(Way(19)), cuts)[1]
    written = case.feed(text, case.state(Way(19, inplace=True)), cuts)[1]
    rest = text.between(12, 19)
    other = Text((rest.ids + 3) % VOCABULARY, rest.labels)
    case.feed(other, kept, (4, 3))  # must leave no trace
    functional, _ = case.feed(rest, kept, (1, 2, 4))
    agree(case.feed(rest, written, (1, 2, 4))[0], functional, "after 12 tokens")
    agree(functional, case.whole(text)[:, 12:], "a functional state that was used before")


def used(case: Case) -> None:
    """A state that is written in place is good for one call, and for none that gradients follow."""
    text = case.text(case.first + 2)
    state = case.state(Way(16, inplace=True))
    with torch.enable_grad():
        refuses(lambda: case.model(text.ids, state, **text.given), "a state written in place, with gradients on")
    with torch.no_grad():
        case.model(text.ids, state, **text.given)
        refuses(lambda: case.model(text.ids, state, **text.given), "a state that an earlier call has used")


@torch.no_grad()
def fork(case: Case) -> None:
    """A fork is independent: whatever is done with one, the other goes on as if alone."""
    text = case.text(18)
    want = case.whole(text)
    other = Text(text.ids.clone(), text.labels)
    other.ids[:, 9:] = (other.ids[:, 9:] + 7) % VOCABULARY
    for way in ways(18):
        _, state = case.feed(text, case.state(way), (9,))
        twin = state.fork()
        left, state = case.feed(text.between(9, 13), state, (1, 3))
        right, twin = case.feed(other.between(9, 18), twin, (4, 5))
        rest, _ = case.feed(text.between(13, 18), state, (5,))
        agree(torch.cat([left, rest], 1), want[:, 9:], f"the state that was forked, {way}")
        agree(right, case.whole(other)[:, 9:], f"the fork, {way}")


@torch.no_grad()
def rows(case: Case) -> None:
    """Rows that are selected from a state, or stacked from several, go on as they would alone."""
    text = case.text(16)
    want = case.whole(text)
    order = [2, 0, 0]
    for way in ways(16):
        _, state = case.feed(text, case.state(way), (9,))
        rest = Text(text.ids[order, 9:], {name: x[order, 9:] for name, x in text.labels.items()})
        got, _ = case.feed(rest, state.select(order), (1, 6))
        agree(got, want[order, 9:], f"rows {order} selected, {way}")
    states = []
    at = torch.tensor([9, 5, 7])  # rows that are at different places
    for index in range(3):
        row = text.row(index)
        cuts = case.cuts(int(at[index]), index)
        states.append(case.feed(row, case.state(Way(16, inplace=True), [index]), cuts)[1])
    try:
        state = State.stack(states)
    except ValueError as refusal:
        hold(bool(case.sources()), f"stack: {refusal}")  # sources of different lengths
        return
    got, _ = case.feed(text.take(at, 7), state, (1, 4, 2))
    for index in range(3):
        first = int(at[index])
        agree(got[index], want[index, first : first + 7], f"row {index} of a stack")


@torch.no_grad()
def capacity(case: Case) -> None:
    """A state with a capacity takes that many tokens, stays as large as it was, and refuses one more."""
    text = case.text(24)
    slack = 0 if "slack" in case.exempt else 3
    for way in (*ways(23)[1:], *ways(23, slack)[1:]):
        _, state = case.feed(text, case.state(way), (case.first,))
        size = state.nbytes
        _, state = case.feed(text.between(case.first, 23), state, (23 - case.first,))
        hold(state.nbytes == size, f"{way}: the state grew from {size} to {state.nbytes} bytes")
        refuses(lambda state=state: case.feed(text.between(23, 24), state, (1,)), f"{way}: token 24 of 23")


@torch.no_grad()
def bounded(case: Case) -> None:
    """Without a capacity too a state stays as large as what can still be seen of the past, where that is bounded."""
    case.state()
    within = [part for part in parts_in(case.spec) if "inner" in part.fields()]  # these bound what they hold
    held = {id(part) for memory in within for part in parts_in(memory)}
    patterns = [part for part in parts_in(case.spec) if isinstance(part, Pattern) and id(part) not in held]
    restarts = "document" in case.spec.labels
    if any(sum(pattern.reach(restarts)) == float("inf") for pattern in patterns):
        return
    text = case.text(90)
    _, state = case.feed(text, case.state(), (45,))
    size = state.nbytes
    _, state = case.feed(text.between(45, text.length), state, case.cuts(text.length - 45, 0))
    if state.nbytes != size:
        raise ValueError(f"the state grows with the text: {size} bytes after 45 tokens, {state.nbytes} after 90")
