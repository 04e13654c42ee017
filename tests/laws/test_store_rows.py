"""Every store against a plain list of tokens: what a pattern still sees is there, once, with its own value."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.state import Room
from anyformer.core.tables import row, table
from anyformer.patterns.base import Pattern, parse
from anyformer.stores.base import Store
from anyformer.stores.room import make_store

# Which room brings which store; a new row needs a line here.
ROOMS: dict[str, Callable[[Pattern, int], Room]] = {
    "grow": lambda pattern, slack: room(None, slack, False),
    "slots": lambda pattern, slack: room(LENGTH, slack, False),
    "fixed": lambda pattern, slack: room(LENGTH, slack, True),
}
LENGTH = 60
PATTERNS = [
    "causal",
    "causal & window(4)",
    "causal & sinks(2)",
    "causal & (sinks(2) | window(4))",
    "causal & window(1)",
]


def room(capacity: int | None, slack: int, inplace: bool) -> Room:
    return Room(Where.start(2, 0), {}, capacity, slack, inplace, torch.float64)


def test_every_store_is_tried() -> None:
    assert ROOMS.keys() == table("anyformer.stores").keys()


@dataclass
class Kept:
    """What a row was told so far, and what was taken back: time -> value."""

    tokens: dict[int, float]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ROOMS)
@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.lists(st.booleans(), min_size=16, max_size=16)), max_size=8),
    st.integers(0, 3),
)
def test_what_is_seen_is_there(kind: str, pattern: str, calls: list[tuple[int, list[bool]]], slack: int) -> None:
    sees = parse(pattern)
    store: Store = make_store(ROOMS[kind](sees, slack), [(1,)], sees.reach())
    if kind != "grow" or sees.reach()[1] == inf:
        assert isinstance(store, row("anyformer.stores", kind))
    rows = [Kept({}), Kept({})]
    fresh = 1.0
    for length, flags in calls:
        real = torch.tensor(flags[: 2 * length]).view(2, length)
        now = torch.tensor([[len(kept.tokens)] for kept in rows])
        time = torch.where(real, now + real.long().cumsum(1) - 1, -1)
        values = fresh + torch.arange(2 * length, dtype=torch.float64).view(2, length, 1)
        fresh += 2 * length
        where = Where(time, time[..., None], {})
        seen, seen_where, store = store.append((values,), where, sees.reach())
        for index, kept in enumerate(rows):
            new = {int(t): float(v) for t, v in zip(time[index], values[index, :, 0], strict=True) if t >= 0}
            kept.tokens |= new
            for query in new:
                assert visible(sees, where, seen[0], seen_where, index, query) == wanted(sees, kept, query)
        if slack:  # the last token of each row, taken back once
            until = torch.tensor([max(0, len(kept.tokens) - 1) for kept in rows])
            store, slack = store.rewind(until), slack - 1
            for kept, last in zip(rows, until.tolist(), strict=True):
                kept.tokens.pop(last, None)


def visible(sees: Pattern, where: Where, seen: Tensor, seen_where: Where, index: int, query: int) -> dict[int, float]:
    """time -> value of what the query finds in the store."""
    q = Where(torch.tensor([[query]]), torch.tensor([[[query]]]), {})
    k = Where(seen_where.time[index : index + 1], seen_where.coords[index : index + 1], {})
    mask = (sees.sees(q.queries, k.keys)[0, 0]) & k.real[0]
    found = [(int(t), float(v)) for t, v in zip(k.time[0, mask], seen[index, mask, 0], strict=True)]
    assert len(found) == len(dict(found)), "a token is there twice"
    return dict(found)


def wanted(sees: Pattern, kept: Kept, query: int) -> dict[int, float]:
    """The same from the list of all tokens."""
    times = torch.tensor([sorted(kept.tokens)])
    q, k = (Where(t, t[..., None], {}) for t in (torch.tensor([[query]]), times))
    mask = sees.sees(q.queries, k.keys)[0, 0]
    return {t: kept.tokens[t] for t in times[0, mask].tolist()}
