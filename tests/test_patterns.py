"""Patterns: the grammar both ways, and what caches and models are told about each pattern."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from anyformer.core.context import Where
from anyformer.core.spec import Spec, from_dict, spec
from anyformer.patterns.base import Ahead, And, AnyPattern, Not, Or, Pattern, parse
from anyformer.patterns.causal import Causal
from anyformer.patterns.documents import Documents
from anyformer.patterns.full import Full
from anyformer.patterns.global_tokens import GlobalTokens
from anyformer.patterns.near_blocks import NearBlocks
from anyformer.patterns.prefix import Prefix
from anyformer.patterns.random_blocks import RandomBlocks
from anyformer.patterns.same import Same
from anyformer.patterns.sinks import Sinks
from anyformer.patterns.window import Window

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
rows = st.one_of(
    st.sampled_from([Causal(), Full(), Documents(), Prefix()]),
    st.builds(Window, st.integers(1, 10**9)),
    st.builds(Sinks, st.integers(1, 100)),
    st.builds(NearBlocks, st.integers(1, 100)),
    st.builds(RandomBlocks, st.integers(1, 100), st.integers(1, 5), st.integers(0, 9)),
    st.builds(GlobalTokens, names, st.integers(0, 9)),
    st.builds(Same, names | st.sampled_from(["true", "false", "null"])),
)


def combined(parts: st.SearchStrategy[Pattern]) -> st.SearchStrategy[Pattern]:
    several = st.lists(parts, min_size=2, max_size=4).map(tuple)
    return st.one_of(st.builds(And, several), st.builds(Or, several), st.builds(Not, parts))


patterns = st.recursive(rows, combined, max_leaves=12)


@given(patterns)
def test_value_to_text_to_value(pattern: Pattern) -> None:
    assert parse(str(pattern)) == pattern


@given(patterns, st.randoms())
def test_text_to_value_to_text_whatever_the_spaces(pattern: Pattern, random: Any) -> None:
    text = str(pattern)
    spaced = "".join(f"{c}{' ' * random.randrange(3)}" if c in "&|~()=," else c for c in text)
    assert str(parse(spaced)) == text


def test_not_binds_before_and_before_or() -> None:
    assert parse("~causal & full | window(3)") == Or((And((Not(Causal()), Full())), Window(3)))
    assert parse("causal | full & window(3)") == Or((Causal(), And((Full(), Window(3)))))
    assert str(~(Causal() & Full())) == "~(causal & full)"
    assert str(Causal() & (Sinks(4) | Window(512))) == "causal & (sinks(4) | window(512))"


def test_and_and_or_flatten() -> None:
    assert Causal() & Full() & Window(2) == Causal() & (Full() & Window(2)) == And((Causal(), Full(), Window(2)))
    assert parse("(causal | full) | window(2)") == Or((Causal(), Full(), Window(2)))


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("causal & widow(4)", 10, "no pattern 'widow'; there are: causal, .*nearest: 'window'"),
        ("Causal", 1, "nearest: 'causal'"),
        ("causal &", 9, "came the end"),
        ("", 1, "should stand here; came the end"),
        ("(causal", 8, r"`\)` should stand here"),
        ("causal)", 7, r"the end should stand here; came '\)'"),
        ("causal causal", 8, "came 'causal'"),
        ("causal $ full", 8, r"'\$' is no part of a pattern"),
        ("window", 1, "window: size: is missing"),
        ("window(0)", 1, "should be greater than or equal to 1; came 0"),
        ("window(true)", 1, "should be a valid integer; came True"),
        ("window(siz=3)", 1, "siz: no such key; allowed: size; nearest: 'size'"),
        ("window(3, 4)", 11, "only the first value may stand without its name; window takes: size"),
        ("causal(3)", 8, "causal takes: nothing"),
        ("window(3, size=4)", 11, "size is given twice"),
        ("window(size=)", 13, r"a value should stand here; came '\)'"),
        ("window(", 8, "a value should stand here; came the end"),
        ("(" * 60 + "causal" + ")" * 60, 51, "more than 50 brackets"),
        ("~" * 60 + "causal", 51, "more than 50 brackets"),
    ],
)
def test_errors_name_the_column_and_what_is_allowed(text: str, column: int, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        parse(text)
    assert f"column {column}:" in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(alphabet='causlwindo()[]&|~,="\\ 12.-e\n\t_é', max_size=40))
def test_any_text_is_a_pattern_or_one_clear_error(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error).startswith("pattern ") and "\n" not in str(error)


def test_a_very_long_text_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 10000 characters"):
        parse("causal & " * 10_000 + "causal")


@spec
class Holder(Spec):
    pattern: AnyPattern = Causal()


def test_a_field_is_written_as_text_and_read_from_text_mapping_or_value() -> None:
    held = Holder(pattern=Causal() & Window(4))
    assert held.to_dict() == {"pattern": "causal & window(4)"}
    assert from_dict(Holder, held.to_dict()) == held
    assert from_dict(Holder, {"pattern": {"kind": "window", "size": 4}}) == Holder(pattern=Window(4))
    with pytest.raises(ValidationError, match="column 10"):
        from_dict(Holder, {"pattern": "causal & widow(4)"})
    with pytest.raises(ValidationError, match="should be text such as"):
        from_dict(Holder, {"pattern": 4})


def test_fewer_than_two_parts_are_no_combination() -> None:
    with pytest.raises(ValidationError):
        And((Causal(),))


def test_reach_of_combinations() -> None:
    streaming = Causal() & (Sinks(4) | Window(512))
    assert Causal().reach() == Full().reach() == (~Window(3)).reach() == (0, math.inf)
    assert Window(512).reach() == (0, 512)
    assert streaming.reach() == (4, 512)
    assert streaming.reach(restarts=True) == (0, math.inf)
    assert (Causal() & Window(8)).reach(restarts=True) == (0, 8)
    assert (Window(3) & Window(5)).reach() == (0, 3)
    assert NearBlocks(3).reach(restarts=True) == (0, 6)
    assert (NearBlocks(3) | GlobalTokens("memory")).reach() == RandomBlocks(3).reach() == (0, math.inf)
    assert (Causal() | Window(5)).reach() == (0, math.inf)


def test_how_far_ahead_and_which_labels() -> None:
    assert (Causal() & Full()).ahead() == Ahead.NONE
    assert (Causal() | Prefix()).ahead() == Ahead.PREFIX
    assert (Causal() | Window(3)).ahead() == (~Causal()).ahead() == Ahead.ALL
    assert (Causal() & (Documents() | ~Same("memory"))).labels() == {"document", "memory"}


@dataclass(frozen=True)
class Tokens:
    """Four tokens: two documents of two, the first token a prefix, tokens 1 and 3 marked as memory."""

    time: torch.Tensor
    offset: torch.Tensor
    labels: dict[str, torch.Tensor]


def seen(pattern: Pattern) -> list[list[int]]:
    """The pattern's matrix for the four tokens."""
    time, offset = torch.arange(4)[None], torch.tensor([[0, 1, 0, 1]])
    labels = {name: torch.tensor([value]) for name, value in LABELS.items()}
    q = Tokens(time[..., None], offset[..., None], {name: value[..., None] for name, value in labels.items()})
    k = Tokens(time[:, None], offset[:, None], {name: value[:, None] for name, value in labels.items()})
    pairs: Any = pattern.sees(q, k)  # type: ignore[arg-type]
    assert pairs.dtype == torch.bool and pairs.shape == (1, 4, 4)
    return pairs[0].int().tolist()


LABELS = {"document": [0, 0, 1, 1], "prefix": [1, 0, 0, 0], "memory": [0, 1, 0, 1]}


@pytest.mark.parametrize(
    ("text", "matrix"),
    [
        ("full", ["1111", "1111", "1111", "1111"]),
        ("causal", ["1000", "1100", "1110", "1111"]),
        ("window(2)", ["1100", "1110", "0111", "0011"]),
        ("causal & window(2)", ["1000", "1100", "0110", "0011"]),
        ("sinks(1)", ["1010", "1010", "1010", "1010"]),
        ("documents", ["1100", "1100", "0011", "0011"]),
        ("causal | prefix", ["1000", "1100", "1110", "1111"]),
        ("prefix", ["1000", "1000", "1000", "1000"]),
        ("same(memory)", ["0000", "0101", "0000", "0101"]),
        ("global_tokens(prefix)", ["1111", "1000", "1000", "1000"]),
        ("global_tokens(prefix, first=1)", ["1111", "1010", "1111", "1010"]),
        ("near_blocks(1)", ["1100", "1100", "0011", "0011"]),
        ("random_blocks(1)", ["0100", "1000", "0001", "0010"]),
        ("causal & (documents | sinks(1))", ["1000", "1100", "1010", "1011"]),
        ("~causal", ["0111", "0011", "0001", "0000"]),
    ],
)
def test_who_sees_whom(text: str, matrix: list[str]) -> None:
    assert seen(parse(text)) == [[int(cell) for cell in line] for line in matrix]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_windows_are_those_of_published_models(size: int) -> None:
    """The key `sliding_window` or `window_size` of a causal model is `size`; half of ModernBERT's `local_attention`."""
    masks = pytest.importorskip("transformers.masking_utils")
    neo = pytest.importorskip("transformers.models.gpt_neo.modeling_gpt_neo").GPTNeoSelfAttention
    config = pytest.importorskip("transformers").GPTNeoConfig(
        hidden_size=4, num_heads=1, max_position_embeddings=9, window_size=size
    )
    q, k, where = torch.arange(9)[:, None], torch.arange(9)[None], Where.start(1, 9)
    back, both = (
        parse(text).sees(where.queries, where.keys)[0] for text in (f"causal & window({size})", f"window({size + 1})")
    )
    assert torch.equal(back, masks.sliding_window_causal_mask_function(size)(0, 0, q, k))
    assert torch.equal(back, neo(config, "local").bias[0, 0])
    assert torch.equal(both, masks.sliding_window_bidirectional_mask_function(size)(0, 0, q, k))
