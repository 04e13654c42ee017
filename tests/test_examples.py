"""Rows on the disk, in batches, and on two sides: nothing is lost, and every batch is a function of seed and number."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.core.errors import InputError
from anyformer.core.roles import Tokenizer
from anyformer.core.spec import Fraction, spec
from anyformer.data.base import Row, TextData
from anyformer.data.buckets import POOL, Buckets
from anyformer.data.examples import Examples, padded, write_examples
from anyformer.data.sides import sides
from anyformer.data.tokenizers.bytes import Bytes

INT32 = st.integers(-(2**31), 2**31 - 1)
LISTS = st.lists(st.lists(st.tuples(*[st.lists(INT32, max_size=6)] * 2), max_size=9), min_size=1, max_size=2)


def written(
    folder: Path, name: str, rows: list[tuple[list[int], ...]], columns: tuple[str, ...] = ("ids", "label")
) -> Examples:
    examples = ((7 * at, dict(zip(columns, map(np.array, row), strict=True))) for at, row in enumerate(rows))
    write_examples(folder, name, columns, examples)
    return Examples.open(folder, name)


# Examples


@given(LISTS)
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, sides: list) -> None:
    folder = tmp_path_factory.mktemp("examples")
    for name, rows in zip(("train", "held_out"), sides, strict=False):
        found = written(folder, name, rows)
        assert len(found) == len(rows)
        assert found.bytes == sum(7 * at for at in range(len(rows)))
        for at, row in enumerate(rows):
            assert [found.columns[column][at].tolist() for column in ("ids", "label")] == [*map(list, row)]
        assert found.columns["ids"].lengths.tolist() == [len(ids) for ids, _ in rows]
        if rows:
            held = Examples.of([{"ids": np.array(ids), "label": np.array(label)} for ids, label in rows])
            every = np.arange(len(rows))
            for column in ("ids", "label"):
                np.testing.assert_array_equal(held.padded(column, every, -9), found.padded(column, every, -9))


def test_equal_fingerprints_are_equal_rows(tmp_path: Path) -> None:
    rows = [([1, 2], [3]), ([4], [5, 6]), ([], [])]
    others = [
        [([1], [3]), ([2, 4], [5, 6]), ([], [])],  # the same numbers, divided at other places
        [([1, 2], [3, 5]), ([4], [6]), ([], [])],
        rows[:2],
        [([1, 2], [3]), ([4], [5, 7]), ([], [])],
        [([3], [1, 2]), ([5, 6], [4]), ([], [])],
    ]
    prints = {written(tmp_path, "train", some).fingerprint for some in (rows, *others)}
    prints.add(written(tmp_path, "train", rows, ("ids", "tags")).fingerprint)
    assert len(prints) == 7
    assert written(tmp_path, "again", rows).fingerprint in prints


def test_values_are_read_as_they_are_needed(tmp_path: Path) -> None:
    found = written(tmp_path, "train", [([number, -number], []) for number in range(100)])
    assert isinstance(found.columns["ids"].values, np.memmap)
    assert found.columns["label"].values.size == 0  # an empty file cannot be mapped
    assert (tmp_path / "train.ids.values").read_bytes() == np.array([[n, -n] for n in range(100)], "<i4").tobytes()
    assert found.padded("label", [3, 4], -1).shape == (2, 0)
    with pytest.raises(ValueError, match="read-only"):
        found.columns["ids"].values[0] = 1


def test_rows_are_filled_up_on_the_right() -> None:
    array, lengths = padded([[1, 2, 3], [], np.array([4])], -7)
    assert array.tolist() == [[1, 2, 3], [-7, -7, -7], [4, -7, -7]]
    assert lengths.tolist() == [3, 0, 1]
    assert padded([], 0)[0].shape == (0, 0)


# Buckets


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 2**70), st.integers(0, 3)
)
def test_an_epoch_has_every_row_at_most_once(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    buckets = Buckets(np.array(lengths), batch, seed)
    size = min(batch, len(lengths))
    batches = [buckets.at(epoch * buckets.batches + at) for at in range(buckets.batches)]
    assert all(rows.shape == (size,) for rows in batches)
    seen = Counter(np.concatenate(batches).tolist())
    assert {*seen.values()} == {1} and min(seen) >= 0 and max(seen) < len(lengths)
    assert len(lengths) - len(seen) < size  # what does not fill a batch waits
    for number in (0, 5 * buckets.batches, 1):  # in any order, from any state of the cache
        np.testing.assert_array_equal(buckets.at(number), Buckets(np.array(lengths), batch, seed).at(number))


def test_epochs_and_seeds_differ_and_every_row_gets_its_turn() -> None:
    lengths = np.arange(23) % 7
    epochs = [
        [Buckets(lengths, 5, seed).at(epoch * 4 + at).tolist() for at in range(4)]
        for seed in (0, 1)
        for epoch in range(9)
    ]
    assert len({str(epoch) for epoch in epochs}) == 18
    waited = [{*range(23)} - {row for batch in epoch for row in batch} for epoch in epochs]
    assert all(len(rows) == 3 for rows in waited)
    assert len(set.union(*waited)) > 15  # it is not always the same ones who wait


def test_the_order_is_not_one_of_lengths() -> None:
    """Batches come in random order, and so do rows of equal length."""
    buckets = Buckets(np.repeat(np.arange(40), 4), 4, 3)
    first = [buckets.lengths[buckets.at(at)].mean() for at in range(40)]
    assert 0.3 < np.mean([a < b for a, b in pairwise(first)]) < 0.7
    alike = Buckets(np.ones(30, dtype=np.int64), 30, 0)
    assert alike.at(0).tolist() != sorted(alike.at(0).tolist()) != alike.at(1).tolist()


def test_rows_of_a_batch_are_of_about_equal_length() -> None:
    """Within a pool of 64 batches the spread of a batch is a 64th of the whole, and little is padding."""
    lengths = np.random.default_rng(0).integers(1, 1001, 8 * POOL * 3 + 5)
    buckets = Buckets(lengths, 8, 0)
    found = [lengths[buckets.at(number)] for number in range(buckets.batches)]
    spreads = [rows.max() - rows.min() for rows in found]
    assert np.mean(spreads) < 2 * 1000 / POOL
    padding = 1 - sum(rows.sum() for rows in found) / sum(len(rows) * rows.max() for rows in found)
    random = lengths[: len(found) * 8].reshape(-1, 8)
    assert padding < 0.05 < 0.3 < 1 - random.sum() / (8 * random.max(1)).sum()


def test_few_rows_and_none() -> None:
    few = Buckets(np.array([5, 2, 9]), 8, 0)
    assert (few.size, few.batches) == (3, 1)
    assert {*few.at(0).tolist()} == {*few.at(7).tolist()} == {0, 1, 2}
    one = Buckets(np.array([4]), 8, 0)
    assert [one.at(number).tolist() for number in range(3)] == [[0]] * 3
    with pytest.raises(InputError, match="there is no row to train on: give more data"):
        Buckets(np.array([], dtype=np.int64), 8, 0)
    with pytest.raises(ValueError, match=r"batch \(0\) must be at least 1"):
        Buckets(np.array([4]), 0, 0)


# Sides


@spec
class Given(TextData):
    """Rows that are written in the test. own: the validation set."""

    lines: tuple[dict[str, str], ...]
    own: tuple[dict[str, str], ...] | None = None
    tokenizer: Tokenizer = Bytes()
    source_tokenizer: Tokenizer | None = None
    held_out: Fraction = 0.3

    def rows(self) -> Iterator[Row]:
        yield from self.lines

    def validation(self) -> Iterator[Row] | None:
        return None if self.own is None else iter(self.own)

    def elsewhere(self, path: str) -> TextData:
        raise NotImplementedError


def lines(count: int) -> tuple[dict[str, str], ...]:
    return tuple({"text": f"text {number % 17}", "label": str(number % 17 % 3)} for number in range(count))


def test_every_row_is_on_one_side_and_equal_rows_are_on_the_same() -> None:
    rows = lines(60)
    parts = sides(Given(lines=rows), seed=1)
    train, held_out = ([row["text"] for row in parts.rows(side)] for side in ("train", "held_out"))
    assert len(train) + len(held_out) == 60
    assert not {*train} & {*held_out}
    assert len({*held_out}) == round(0.3 * 17)
    kept = iter(row["text"] for row in rows)
    assert all(text in kept for text in train)  # in the order of the data
    assert [*parts.rows("train")] == [*parts.rows("train")]
    assert {*held_out} != {row["text"] for row in sides(Given(lines=rows), seed=2).rows("held_out")}
    shuffled = sides(Given(lines=rows[::-1]), seed=1)
    assert {row["text"] for row in shuffled.rows("held_out")} == {*held_out}
    assert shuffled.contents != parts.contents


@pytest.mark.parametrize(("held_out", "sizes"), [(0.0, (9, 0)), (1.0, (0, 9)), (0.001, (8, 1)), (0.999, (1, 8))])
def test_no_side_is_empty_unless_it_is_asked_for(held_out: float, sizes: tuple[int, int]) -> None:
    parts = sides(Given(lines=lines(9), held_out=held_out), 0)
    assert tuple(len([*parts.rows(side)]) for side in ("train", "held_out")) == sizes


def test_a_validation_set_is_held_out_whole_and_tells_data_apart() -> None:
    rows, own = lines(9), lines(4)
    parts = sides(Given(lines=rows, own=own), 0)
    assert ([*parts.rows("train")], [*parts.rows("held_out")]) == ([*rows], [*own])
    prints = {sides(data, 0).contents for data in (Given(lines=rows, own=own), Given(lines=own, own=rows))}
    prints |= {sides(Given(lines=rows + own[:1], own=own[1:]), 0).contents, parts.contents}
    assert len(prints) == 3


@pytest.mark.parametrize("count", [1, 5])
def test_one_row_over_and_over_is_whole_or_refused(count: int) -> None:
    rows = ({"text": "the only one", "label": "1"},) * count
    for held_out, side in ((0.0, "train"), (1.0, "held_out")):
        parts = sides(Given(lines=rows, held_out=held_out), 0)
        found = {name: [*parts.rows(name)] for name in ("train", "held_out")}
        assert found.pop(side)[0] == rows[0]
        assert not any(found.values())
    with pytest.raises(InputError, match=r"one row, over and over, .* set data.held_out to 0"):
        list(sides(Given(lines=rows), 0).rows("train"))
    cut = sides(Given(lines=({"text": "0123456789"},)), 0)
    assert [[row["text"] for row in cut.rows(side)] for side in ("train", "held_out")] == [["0123456"], ["789"]]


def test_the_columns_of_a_side() -> None:
    rows = ({"text": "a", "pair": "b"}, {"text": "c", "label": "d"})
    parts = sides(Given(lines=rows, own=()), 0)
    assert [*parts.texts("train", ("text", "pair"))] == ["a", "b", "c"]
    with pytest.raises(InputError, match="the data has no column 'source'; it has: text, pair"):
        list(parts.texts("train", ("source", "target")))
