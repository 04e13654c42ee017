"""Repeats and overrides: plain data changed by its path, judged by one reading at the end."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from anyformer.attention.linear import Linear
from anyformer.attention.softmax import Softmax
from anyformer.core.errors import ConfigError
from anyformer.core.overrides import changed, expand, override
from anyformer.core.roles import AnyModel
from anyformer.core.spec import Ref, from_dict
from anyformer.norms.layer import LayerNorm
from anyformer.norms.rms import RMSNorm
from anyformer.patterns.base import parse
from anyformer.patterns.causal import Causal

MIXER = {"kind": "softmax", "heads": 4}
BLOCK = {"kind": "block", "mixer": MIXER}
TREE = {"kind": "decoder", "width": 64, "body": {"kind": "stack", "blocks": [{"repeat": 6, "block": BLOCK}]}}


def model(*changes: tuple[str, Any], **fields: Any) -> Any:
    """The model of TREE after some changes."""
    tree = expand({**TREE, **fields})
    for path, value in changes:
        tree = override(tree, path, value, AnyModel)
    return from_dict(AnyModel, tree)


def mixers(made: Any) -> list[Any]:
    return [block.mixer for block in made.body.blocks]


# Repeats


def test_repeats_are_written_out_and_share_nothing() -> None:
    made = expand({"blocks": ["a", {"repeat": 2, "block": {"x": [1]}}, {"repeat": 2, "block": ["b", "c"]}]})
    assert made == {"blocks": ["a", {"x": [1]}, {"x": [1]}, "b", "c", "b", "c"]}
    assert made["blocks"][1] is not made["blocks"][2]
    assert expand([{"repeat": 2, "block": [{"repeat": 2, "block": "a"}, "b"]}]) == ["a", "a", "b", "a", "a", "b"]


@given(st.recursive(st.integers() | st.text(max_size=3), lambda c: st.lists(c) | st.dictionaries(st.text("ab"), c)))
def test_what_has_no_repeat_stays_as_it_is(tree: Any) -> None:
    assert expand(tree) == tree


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ([{"repeat": 0, "block": 1}], r"0.repeat: should be a whole number from 1 to 10000; came 0"),
        ([{"repeat": "2", "block": 1}], r"came '2' \(text\)"),
        ([{"repeat": True, "block": 1}], r"came True"),
        ([{"repeat": 2}], r"a repeat has the keys repeat and block; came repeat"),
        ([{"repeat": 2, "block": 1, "x": 1}], r"came repeat, block, x"),
        ({"body": {"repeat": 2, "block": 1}}, r"body: a repeat stands in a list"),
        ([{"repeat": 10_000, "block": [{"repeat": 10_000, "block": 1}]}], r"more than 10000 items"),
        ([{"repeat": 9_000, "block": 1}, {"repeat": 9_000, "block": 1}], r"more than 10000 items"),
    ],
)
def test_bad_repeats(tree: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        expand(tree)


# Paths


def test_a_value_is_set_in_one_block_in_some_and_in_all() -> None:
    heads = mixers(
        model(("body.blocks.*.mixer.heads", 8), ("body.blocks.2-3.mixer.heads", 2), ("body.blocks.5.mixer.heads", 1))
    )
    assert [mixer.heads for mixer in heads] == [8, 8, 2, 2, 8, 1]


def test_what_is_not_written_has_its_default_below_it() -> None:
    made = model(("body.blocks.0.residual.norm.eps", 1e-3), ("embedding.std", 0.5))
    assert made.body.blocks[0].residual.norm.eps == 1e-3
    assert made.embedding.std == 0.5
    assert made.body.blocks[1].residual.norm.eps == 1e-5


def test_a_pattern_is_set_by_its_text() -> None:
    made = model(("body.blocks.4-5.mixer.pattern", "causal & (sinks(4) | window(512))"))
    assert mixers(made)[4].pattern == parse("causal & (sinks(4) | window(512))")
    assert mixers(made)[3].pattern == Causal()


def test_a_wrapper_is_seen_through() -> None:
    wrapped = {"kind": "rmt", "slots": 2, "segment": 4, "inner": {"kind": "stack", "blocks": [BLOCK, BLOCK]}}
    made = model(("body.blocks.1.mixer.heads", 8), ("body.inner.blocks.0.mixer.heads", 2), body=wrapped)
    assert [block.mixer.heads for block in made.body.inner.blocks] == [2, 8]


def test_repeats_in_a_value_are_written_out() -> None:
    made = model(("body.blocks", [BLOCK, {"repeat": 2, "block": {**BLOCK, "mixer": {"kind": "linear", "heads": 2}}}]))
    assert [type(mixer) for mixer in mixers(made)] == [Softmax, Linear, Linear]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("boody.blocks", 1, r"boody: no such key; allowed: .*width.*; nearest: 'body'"),
        (
            "body.blocks.0.mixer.patern",
            1,
            r"body.blocks.0.mixer.patern: no such key; allowed: heads.*nearest: 'pattern'",
        ),
        ("body.blocks.6.mixer", 1, r"body.blocks: there is no 6; there are 6, 0 to 5"),
        ("body.blocks.4-6.mixer", 1, r"body.blocks: there is no 4-6"),
        ("body.blocks.3-2.mixer", 1, r"body.blocks: there is no 3-2"),
        ("body.blocks.-1.mixer", 1, r"body.blocks: '-1' is no index; write 0 to 5, a range such as 0-5, or \*"),
        ("body.blocks.first", 1, r"body.blocks: 'first' is no index"),
        ("width.x", 1, r"width: 64 \(a whole number\) has nothing below it; came 'x'"),
        (
            "body.blocks.0.cross.heads",
            1,
            r"body.blocks.0.cross: null has nothing below it; .*set body.blocks.0.cross itself",
        ),
        ("body.blocks.0.mixer.pattern.size", 1, r"pattern: 'causal' \(text\) has nothing below it"),
        ("body..blocks", 1, r"'body..blocks' is no path"),
        ("", 1, r"'' is no path"),
    ],
)
def test_bad_paths(path: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        model((path, value))


def test_leaves_are_judged_by_the_reading_at_the_end() -> None:
    with pytest.raises(ValidationError):
        model(("body.blocks.0.mixer.heads", "four"))
    assert mixers(model(("body.blocks.0.mixer.heads", "four"), ("body.blocks.0.mixer.heads", 4)))[0].heads == 4


# Swapping a part


def test_a_bare_name_keeps_the_fields_that_both_have() -> None:
    made = model(("body.blocks.*.mixer.bias", True), ("body.blocks.1-2.mixer", "linear"))
    assert mixers(made)[1] == Linear(heads=4, bias=True)
    assert mixers(made)[3] == Softmax(heads=4, bias=True)
    assert mixers(model(("body.blocks.0.mixer.kind", "linear")))[0] == Linear(heads=4)
    assert mixers(model(("body.blocks.0.mixer", "softmax")))[0] == Softmax(heads=4)


@pytest.mark.parametrize("pattern", ["causal", {"kind": "causal"}])
def test_a_field_that_is_at_its_default_goes_quietly(pattern: Any) -> None:
    assert mixers(model(("body.blocks.0.mixer.pattern", pattern), ("body.blocks.0.mixer", "linear")))[0] == Linear(
        heads=4
    )


def test_a_field_at_its_default_takes_the_new_default() -> None:
    """So that it does not matter whether defaults were written out, as they are in a run."""
    swap = ("body.blocks.0.residual.norm", "rms")
    assert model(swap).body.blocks[0].residual.norm == RMSNorm() != RMSNorm(eps=LayerNorm().eps)
    assert model(("body.blocks.0.residual.norm.eps", 0.1), swap).body.blocks[0].residual.norm == RMSNorm(eps=0.1)
    assert changed(model(), dict([swap])) == model(swap)


def test_a_field_that_was_set_is_not_dropped_by_a_bare_name() -> None:
    setting = ("body.blocks.0.mixer.pattern", "causal & window(3)")
    with pytest.raises(ConfigError, match=r"mixer: linear has no pattern .*write \{kind: linear\} to drop"):
        model(setting, ("body.blocks.0.mixer", "linear"))
    assert mixers(model(setting, ("body.blocks.0.mixer", {"kind": "linear", "heads": 2})))[0] == Linear(heads=2)


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"body.blocks.0.mixer: no 'linera' here; allowed: .*; nearest: 'linear'"):
        model(("body.blocks.0.mixer", "linera"))


# Shared parts


def test_below_a_ref_the_owner_is_named() -> None:
    shared = ("body.blocks.1.mixer", {"ref": "body.blocks.0.mixer"})
    assert mixers(model(shared))[1] == Ref("body.blocks.0.mixer")
    with pytest.raises(ConfigError, match=r"body.blocks.1.mixer is shared, .*; set body.blocks.0.mixer.heads instead"):
        model(shared, ("body.blocks.*.mixer.heads", 2))
    assert mixers(model(shared, ("body.blocks.1.mixer", {"kind": "linear", "heads": 2})))[1] == Linear(heads=2)


# Specs


def test_a_spec_is_changed_by_paths() -> None:
    made = model()
    after = changed(made, {"body.blocks.*.mixer": "linear", "body.blocks.0.mixer": Softmax(heads=2), "width": 32})
    assert after == changed(after, {})
    assert [type(mixer) for mixer in mixers(after)] == [Softmax] + [Linear] * 5
    assert (made.width, after.width, made == model()) == (64, 32, True)
    assert (
        mixers(changed(made, {"body.blocks.0.mixer": Softmax(heads=2), "body.blocks.0.mixer.heads": 1}))[0].heads == 1
    )


def test_the_tree_that_is_overridden_is_left_alone() -> None:
    tree = expand(TREE)
    override(tree, "body.blocks.*.mixer.heads", 2, AnyModel)
    assert tree == expand(TREE)
