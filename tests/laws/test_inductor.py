"""A few declarations compiled as users compile them; minutes, since a compiler is run."""

import pytest
from compositions import compositions

from anyformer.laws.case import Case
from anyformer.laws.cases import all_cases
from anyformer.laws.programs import decode

NAMES = ("attention.softmax-0", "attention.linear", "memory.rmt", "positions.t5", "composition.mixed")
CASES = [case for case in [*all_cases(), *compositions()] if case.name in NAMES]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, when it loads its compiler
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inductor(case: Case) -> None:
    decode(case, "inductor")
