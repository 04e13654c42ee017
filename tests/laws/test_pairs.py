"""Patterns against definitions in plain Python, pair by pair: the laws know only what a pattern says of itself."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from anyformer.core.tables import table
from anyformer.laws.cases import cases_of
from anyformer.laws.pairs import texts
from anyformer.patterns.base import parse
from anyformer.patterns.causal import Causal

LENGTH = 40


@dataclass
class Token:
    """One place of one row. start: the place at which its document begins."""

    time: int
    start: int
    document: int
    prefix: int
    kind: int


def linked(a: int, b: int) -> bool:
    """Whether the later of two blocks is one that drew the earlier: two draws, seed 5."""
    later, earlier = max(a, b), min(a, b)
    return earlier < later and earlier in {
        mixed(later * 0x2545F491 + 5 * 0x3C6EF372 + n * 0x1B873593) % later for n in (0, 1)
    }


def mixed(x: int) -> int:
    """The bits of a number, stirred, in 31 bits."""
    for factor in (0x7FEB352D, 0x31848BAB):
        x %= 2**31
        x = (x ^ x // 2**15) * factor
    x %= 2**31
    return x ^ x // 2**16


DEFINITIONS: dict[str, tuple[str, Callable[[Token, Token], bool]]] = {
    "causal": ("causal", lambda q, k: k.time <= q.time),
    "documents": ("documents", lambda q, k: k.document == q.document),
    "full": ("full", lambda q, k: True),
    "global_tokens": (
        "global_tokens(kind, first=2)",
        lambda q, k: any(token.kind > 0 or token.time - token.start < 2 for token in (q, k)),
    ),
    "near_blocks": (
        "near_blocks(3)",
        lambda q, k: q.start == k.start and -1 <= (q.time - q.start) // 3 - (k.time - k.start) // 3 <= 1,
    ),
    "prefix": ("prefix", lambda q, k: k.prefix > 0),
    "random_blocks": (
        "random_blocks(2, count=2, seed=5)",
        lambda q, k: q.start == k.start and linked((q.time - q.start) // 2, (k.time - k.start) // 2),
    ),
    "same": ("same(kind)", lambda q, k: k.kind == q.kind and k.kind > 0),
    "sinks": ("sinks(3)", lambda q, k: k.time - k.start < 3),
    "window": ("window(4)", lambda q, k: -4 < k.time - q.time < 4),
    "not": ("~window(4)", lambda q, k: not -4 < k.time - q.time < 4),
    "streaming": (
        "documents & causal & (sinks(2) | window(5))",
        lambda q, k: k.document == q.document and k.time <= q.time and (k.time - k.start < 2 or q.time - k.time < 5),
    ),
}


def test_every_pattern_has_a_definition_here() -> None:
    assert table("anyformer.patterns").keys() <= DEFINITIONS.keys()


RUNS = [
    (name, packed)
    for name, (written, _) in DEFINITIONS.items()
    for packed in (False, True)
    if packed or "documents" not in written
]


@pytest.mark.parametrize(("name", "packed"), RUNS, ids=[f"{name}-{'packed' if p else 'alone'}" for name, p in RUNS])
def test_pattern_is_its_definition(name: str, packed: bool) -> None:
    written, meets = DEFINITIONS[name]
    pattern = parse(written)
    (case, *_) = cases_of(Causal, "causal")
    names = {"prefix", "kind"} | ({"document"} if packed else set())
    where = texts(case.changed(replace(case.spec, labels=tuple(sorted(names)))), LENGTH)
    seen = pattern.sees(where.queries, where.keys)
    for row in range(seen.shape[0]):
        label = {name: values[row].tolist() for name, values in where.labels.items()}
        nothing = [0] * LENGTH
        tokens = [
            Token(
                time,
                label.get("start", nothing)[time],
                label.get("document", nothing)[time],
                label["prefix"][time],
                label["kind"][time],
            )
            for time in range(LENGTH)
        ]
        assert seen[row].tolist() == [[meets(q, k) for k in tokens] for q in tokens]
