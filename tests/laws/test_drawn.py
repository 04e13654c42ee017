"""The law of state with drawn shapes, cuts and padding, on the parts that keep a state of their own kind."""

import pytest
import torch
from compositions import compositions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anyformer.laws.broken import agree
from anyformer.laws.case import Case, Way
from anyformer.laws.cases import all_cases

NAMES = {"attention.softmax-0", "attention.linear", "memory.rmt", "patterns.sinks", "composition.streaming"}
NAMES |= {"composition.rmt-streaming", "composition.rmt-rmt"}
CASES = [case for case in [*all_cases(), *compositions()] if case.name in NAMES]

cuts = st.lists(st.integers(1, 14), min_size=1, max_size=6)
whole = st.tuples(
    st.sampled_from([None, 0, 3]), st.booleans(), st.integers(0, 4)
)  # room beyond the text; in place; slack


def way(drawn: tuple[int | None, bool, int], length: int) -> Way:
    beyond, inplace, slack = drawn
    return Way(slack=slack) if beyond is None else Way(length + beyond, inplace, slack)


def test_all_names_are_cases() -> None:
    assert {case.name for case in CASES} == NAMES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@settings(max_examples=12)
@given(cuts, whole, st.integers(1, 4))
@torch.no_grad()
def test_any_cut(case: Case, cuts: list[int], kept: tuple[int | None, bool, int], rows: int) -> None:
    text = case.text(sum(cuts), rows=rows)
    got, _ = case.feed(text, case.state(way(kept, text.length), range(rows)), cuts)
    agree(got, case.whole(text, range(rows)), f"calls of {cuts}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@settings(max_examples=12)
@given(st.data(), cuts, whole)
@torch.no_grad()
def test_any_padding_in_any_cut(
    case: Case, data: st.DataObject, cuts: list[int], kept: tuple[int | None, bool, int]
) -> None:
    length = sum(cuts)
    rows = [data.draw(st.lists(st.booleans(), min_size=length, max_size=length)) for _ in range(2)]
    real: Tensor = torch.tensor(rows)
    text = case.text(length, rows=2).laid(real)
    got, _ = case.feed(text, case.state(way(kept, length), range(2)), cuts)
    for index in range(2):
        if bool(real[index].any()):
            agree(got[index, real[index]], case.whole(text.row(index), [index])[0], f"row {index}, calls of {cuts}")
