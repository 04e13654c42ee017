"""The laws can fail: what is broken on purpose is caught."""

import pytest
from mutations import MUTATIONS, Mutation, caught, changed


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_is_to_be_broken_is_there(mutation: Mutation) -> None:
    assert changed(mutation)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_no_mutation_survives(mutation: Mutation) -> None:
    assert caught(mutation)


@pytest.mark.slow
def test_nothing_is_caught_where_nothing_is_broken() -> None:
    assert not caught(None)
