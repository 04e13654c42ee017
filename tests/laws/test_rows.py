"""Every row of every table keeps every law; a new row is tried without being named here."""

import pytest
import torch
from compositions import compositions

from anyformer.laws.case import Case
from anyformer.laws.cases import all_cases
from anyformer.laws.verdict import judge, laws_of

PAIRS = [(case, law) for case in [*all_cases(), *compositions()] for law in laws_of(case)]


@pytest.mark.parametrize(("case", "law"), PAIRS, ids=[f"{case.name}-{law}" for case, law in PAIRS])
def test_law(case: Case, law: str) -> None:
    torch.set_num_threads(1)
    verdict = judge(case, law)
    if verdict.outcome == "FAILED":
        raise AssertionError(verdict.text) from verdict.error


def test_there_are_enough_of_them() -> None:
    assert len(PAIRS) >= 300
