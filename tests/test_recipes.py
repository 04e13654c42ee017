"""Recipes: YAML that is refused with its line, what a recipe says, in which order, and back to text."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.attention.linear import Linear
from anyformer.core.errors import ConfigError, InputError
from anyformer.recipes.layout import dump, rolled
from anyformer.recipes.read import parse_set, read, split_list, write
from anyformer.recipes.schema import recipe_schema
from anyformer.recipes.shipped import find, find_preset, presets, recipes
from anyformer.recipes.yaml import decode, load, load_mapping
from anyformer.runs.folder import RunFolder
from anyformer.training.schedules.constant import Constant
from anyformer.training.schedules.cosine import Cosine

TEXT = """
model:
  kind: decoder
  width: 64
  body:
    kind: stack
    blocks:
      - repeat: 4
        block: {kind: block, mixer: {kind: softmax, heads: 4, pattern: "causal & window(8)"}}
data: {kind: text, path: some.txt}
budget: {steps: 10}
"""
SHORT = "model: {preset: tiny}\ndata: python_docs\nbudget: {steps: 10}\n"

# YAML

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1e-3", 0.001),
        ("a: 3e9", 3e9),
        ("a: [1, -2, .5, 1., 0x1F, 0o17, +3]", [1, -2, 0.5, 1.0, 31, 15, 3]),
        ("a: [true, False, ~, null, '']", [True, False, None, None, ""]),
        ("a: [yes, no, on, 1_000, 1:30, '3', \"1e-3\"]", ["yes", "no", "on", "1_000", "1:30", "3", "1e-3"]),
        ("a: causal & (sinks(4) | window(512))  # a comment", "causal & (sinks(4) | window(512))"),
        ("a: ~causal", "~causal"),
        ("a: '2024-01-01'", "2024-01-01"),
        ("%YAML 1.2\n---\na: |\n  b\n  c\n", "b\nc\n"),
        ("\ufeffa: 1\r\nb: 2\r\n", 1),
        ('{"a": {"b": [1.5, "x"]}}', {"b": [1.5, "x"]}),
        ("b: &x {c: [1]}\na: *x", {"c": [1]}),
    ],
)
def test_what_yaml_stands_for(text: str, value: Any) -> None:
    made = load_mapping(text, "r.yaml")["a"]
    assert made == value and type(made) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "r.yaml: is empty"),
        ("# only a comment\n", "r.yaml: is empty"),
        ("- 1", r"r.yaml: should be a mapping, .* came \[1\]"),
        ("hello", "should be a mapping, .* came 'hello'"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice"),
        ("a:\n  b: 1\n  b: 2", "line 3: the key 'b' stands twice"),
        ("a: 1\nb: 2024-01-01", "line 2: 2024-01-01 reads as a date; quote it"),
        ("a: 2001-12-14t21:59:43.10-05:00", "line 1: .* reads as a date"),
        ("a: !!int 3", "line 1: the tag .*int cannot be used"),
        ("a: !!python/object/apply:os.system ['ls']", "line 1: the tag .* cannot be used"),
        ("a: !mine [1]", "line 1: the tag !mine cannot be used"),
        ("1: a", r"line 1: a key should be text; came 1 \(a whole number\)"),
        ("null: a", "line 1: a key should be text; came null"),
        ("? [1]\n: 2", r"line 1: a key should be text; came \[1\]"),
        ("a: 1\nb: .nan", "line 2: .nan is no number"),
        ("a: -.inf", "line 1: -.inf is no number"),
        ("a: 1e999", "line 1: '1e999' .* too large"),
        ("a: " + "9" * 5000, "line 1: .* too large a number"),
        ("%YAML 1.1\n---\na: 1", "line 2: YAML 1.1 is asked for; recipes are YAML 1.2"),
        ("a: 1\n---\nb: 2", "line 2: a second document begins"),
        ("a: &x [1, *x]", r"line 1: \*x stands inside &x"),
        ("a: *x", r"line 1: \*x has no anchor"),
        ("b: &x {c: 1}\na:\n  <<: *x", "line 3: <<: is not in YAML 1.2"),
        (BOMB, "line 5: has more than 100000 values"),
        ("a: " + "[" * 100_000, "line 1: is nested more than 100 deep"),
        ("a: " + "{b: " * 1000, "line 1: is nested more than 100 deep"),
        ("a: b\n" * 300_000, "a recipe has at most 1000000"),
        ("a: 1\nb: c: d", "line 2: is no YAML: mapping values are not allowed here"),
        ("a: [1, 2", "line 1: is no YAML"),
        ("a: 1\n\tb: 2", "line 2: is no YAML"),
        ("a: 1\nb: \x00", r"line 2: is no YAML: the character U\+0000 is not allowed"),
        ('a: "\\ud800"', "line 1: half a character"),
    ],
)
def test_what_is_refused_and_on_which_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        load_mapping(text, "r.yaml")
    assert "\n" not in str(error.value)


def test_what_is_no_utf8_is_refused_with_its_line() -> None:
    with pytest.raises(InputError, match=r"r.yaml, line 2: byte 0xff is no UTF-8"):
        decode(b"a: 1\nb: \xff", "r.yaml")


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,?~\n\t \\xuU0123.eE<=\x85\u2028\ufeff\x07", max_size=40))
def test_any_text_is_a_value_or_one_clear_error(text: str) -> None:
    try:
        load(text, "r.yaml")
    except ConfigError as error:
        assert str(error).startswith("r.yaml") and "\n" not in str(error)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    [
        "2024-01-01",
        "1e-3",
        "0x1F",
        "yes",
        "~",
        "null",
        "<<",
        "1_000",
        ".inf",
        "+1",
        "a:b",
        "#x",
        "=",
        "-",
        "...",
        "\x85",
    ]
)
leaves = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(leaves | words, lambda c: st.lists(c, max_size=4) | st.dictionaries(words, c, max_size=4))


@given(st.dictionaries(words, trees, max_size=4))
def test_what_is_written_reads_back_the_same(tree: dict[str, Any]) -> None:
    assert load_mapping(dump(tree), "r.yaml") == tree


def test_equal_blocks_are_written_once() -> None:
    assert rolled({"blocks": [{"a": 1}, {"a": 1}, {"b": 1}], "betas": [1, 1]}) == {
        "blocks": [{"repeat": 2, "block": {"a": 1}}, {"b": 1}],
        "betas": [1, 1],
    }


# --set


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("optimizer.lr=3e-4", ("optimizer.lr", 0.0003)),
        ("budget.tokens=3e9", ("budget.tokens", 3e9)),
        ("a=true", ("a", True)),
        ("a=", ("a", None)),
        ("a=null", ("a", None)),
        ("a='3'", ("a", "3")),
        ("a=b=c", ("a", "b=c")),
        ("a=don't, can't", ("a", ["don't", "can't"])),
        ("a.betas=0.9, 0.95", ("a.betas", [0.9, 0.95])),
        ("a=[0.9, 0.95]", ("a", [0.9, 0.95])),
        ("a={kind: linear, heads: 2}", ("a", {"kind": "linear", "heads": 2})),
        ("a=causal & dilated([1, 2], rate=2)", ("a", "causal & dilated([1, 2], rate=2)")),
        ("a=causal & window(4),full", ("a", ["causal & window(4)", "full"])),
        ('a="x, y",z', ("a", ["x, y", "z"])),
    ],
)
def test_what_the_command_line_sets(text: str, change: tuple[str, Any]) -> None:
    assert parse_set(text) == change


@pytest.mark.parametrize("text", ["optimizer.lr", "=3", "a=2024-01-01", "a=.nan", "a=[1", "a={b: 1, b: 2}", "a=[*x]"])
def test_bad_settings(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_set(text)


def test_lists_split_at_top_level_commas_only() -> None:
    assert split_list("softmax, {kind: linear, heads: 2},[1,2],'a,b',f(x, y)") == [
        "softmax",
        "{kind: linear, heads: 2}",
        "[1,2]",
        "'a,b'",
        "f(x, y)",
    ]


# Recipes


def test_a_recipe_reads_and_writes_back() -> None:
    recipe = read(TEXT, ["optimizer.betas=0.9,0.99", "schedule=constant", "model.body.blocks.1-2.mixer.heads=2"])
    assert [block.mixer.heads for block in recipe.model.body.blocks] == [4, 2, 2, 4]  # type: ignore[attr-defined]
    assert recipe.schedule == Constant() and recipe.optimizer.betas == (0.9, 0.99)
    text = write(recipe)
    assert text.startswith("model:") and "repeat: 2" in text
    assert read(text) == recipe
    assert read(json.dumps(recipe.to_dict())) == read(recipe.to_dict()) == recipe


def test_order_preset_then_its_set_then_the_command_line() -> None:
    text = SHORT.replace(
        "tiny}", "tiny, set: {body.blocks.*.mixer.heads: 8, body.blocks.0.mixer: {kind: linear, heads: 2}}}"
    )
    recipe = read(text, ["model.body.blocks.1.mixer.heads=1", "model.width=32"])
    mixers = [block.mixer for block in recipe.model.body.blocks]  # type: ignore[attr-defined]
    assert mixers[0] == Linear(heads=2)
    assert [mixer.heads for mixer in mixers] == [2, 1, 8, 8]
    assert recipe.model.width == 32


def test_what_is_missing_may_come_from_the_command_line() -> None:
    text = "model: {preset: tiny}\ndata: {kind: text}\n"
    with pytest.raises(ConfigError, match=r"data.path: is missing; budget: is missing"):
        read(text)
    recipe = read(text, ["data.path=a.txt", "budget.seconds=60"])
    assert (recipe.budget.seconds, recipe.budget.steps) == (60.0, None)


def test_a_budget_may_be_told_by_another_measure_too() -> None:
    budget = read(SHORT, ["budget.tokens=3e9"]).budget
    assert (budget.steps, budget.tokens) == (10, 3_000_000_000)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("optimzer.lr=1", "optimzer: no such key; allowed: .*; nearest: 'optimizer'"),
        ("optimizer.lrr=1", "optimizer.lrr: no such key; allowed: lr, betas, weight_decay, eps; nearest: 'lr'"),
        ("optimizer.lr='1e-3'", r"optimizer.lr: should be a valid number; came '1e-3' \(text\)"),
        ("optimizer.lr=0", "optimizer.lr: should be greater than 0; came 0"),
        ("optimizer.betas=0.9,1", "optimizer.betas.1: should be less than 1"),
        ("optimizer.betas=0.9", "optimizer.betas: should be a list; came 0.9"),
        ("training.batch=true", r"training.batch: should be a valid integer; came True \(true/false\)"),
        ("training.batch=1e9", "training.batch: should be less than or equal to 16777216"),
        ("training.precision=fp16", "training.precision: should be 'float32' or 'bfloat16'; came 'fp16'"),
        ("training.device=../x", "training.device"),
        ("budget={}", "budget: says nothing; set steps, tokens, seconds or flops"),
        ("budget.steps=1.5", "budget.steps: should be a valid integer; came 1.5"),
        ("budget=10", r"budget: should be a mapping; came 10"),
        ("data=python_dcs", "data: no 'python_dcs' here; allowed: .*; nearest: 'python_docs'"),
        ("schedule=cosin", "schedule: no 'cosin' here; allowed: constant, cosine, .*; nearest: 'cosine'"),
        ("schedule.final=2", "schedule.final: should be less than or equal to 1; came 2"),
        ("seed=-1", "seed: should be greater than or equal to 0"),
        ("version=2", "this recipe has version 2 and this anyformer reads up to 1"),
        ("version=0", "version: should be greater than or equal to 1"),
        ("model.body.blocks.*.mixer.heads=four", r"model.body.blocks.0-3.mixer.heads: should be a valid integer; came"),
        ("model.body.blocks.*.mixer.pattern=causal & widow(4)", r"model.body.blocks.0-3.mixer.pattern: .* column 10"),
        ("model.body.blocks=[]", "model.body.blocks"),
        ("model.width=1e9", "model.width: should be less than or equal to 16777216"),
    ],
)
def test_one_line_says_what_is_wrong(change: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^recipe: {says}") as error:
        read(SHORT, [change])
    assert "\n" not in str(error.value) and "; model" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SHORT.replace("model:", "modle:"), "modle: no such key; allowed: .*; nearest: 'model'"),
        (SHORT.replace("model: {preset: tiny}", ""), "model: is missing"),
        (SHORT.replace("tiny", "tinny"), "there is no preset 'tinny'; there are: .*tiny.*; nearest: 'tiny'"),
        (SHORT.replace("tiny}", "tiny, sets: {}}"), "model: should be {preset: name} or {load: folder}"),
        (SHORT.replace("tiny}", "tiny, set: 3}"), "model.set: should be a mapping"),
        (SHORT.replace("tiny}", "tiny, set: {boody: 3}}"), "model.set: boody: no such key"),
        (
            SHORT.replace("{preset: tiny}", "decodr"),
            "model: no 'decodr' here; allowed: decoder, .*; nearest: 'decoder'",
        ),
        (SHORT.replace("{preset: tiny}", "[1]"), "model: should be a row's name"),
        (SHORT + "version: 7\n", "this recipe has version 7 and this anyformer reads up to 1"),
        (SHORT + "optimizer: {lr: 1e-3, lr: 1e-4}\n", "line 4: the key 'lr' stands twice"),
        (TEXT.replace("repeat: 4", "repeat: 0"), "model.body.blocks.0.repeat: should be a whole number from 1"),
    ],
)
def test_bad_recipes(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(text)


def test_everything_but_the_model_is_judged_before_torch_is_imported() -> None:
    code = f"""
import sys
from anyformer.recipes.read import read
try:
    read({SHORT!r}, ["optimizer.lr=-1", "model.body.blocks.0.mixer=linear"])
except ValueError as error:
    assert "optimizer.lr" in str(error), error
    sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_schema_takes_what_is_written_and_what_is_resolved() -> None:
    made = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    check = jsonschema.Draft202012Validator(made)
    for text in (TEXT, SHORT, write(read(TEXT)), json.dumps(read(SHORT).to_dict())):
        check.validate(load(text, "r.yaml"))
    for text in (SHORT + "sed: 1", TEXT.replace("heads: 4", "headz: 4"), TEXT.replace("heads: 4", "heads: four")):
        assert not check.is_valid(load(text, "r.yaml"))


# Files and names


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my recipe.yaml"
    path.write_text(SHORT)
    assert read(path) == read(str(path)) == read(SHORT)
    path.write_bytes(b"model: \xff")
    with pytest.raises(InputError, match=r"my recipe.yaml, line 1: byte 0xff"):
        read(path)
    path.write_text("")
    with pytest.raises(ConfigError, match=r"my recipe.yaml: is empty"):
        read(path)
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"there is no recipe file .*gone.yaml"):
        read(tmp_path / "gone.yaml")


def test_a_model_from_a_run_folder(tmp_path: Path) -> None:
    first = read(SHORT)
    run = tmp_path / "run"
    RunFolder.create(run, spec=first.model.to_dict(), recipe=write(first), tokenizer=None, info={}).close()
    loaded = f"{{load: {json.dumps(str(run))}, set: {{body.blocks.0.mixer.heads: 2}}}}"
    recipe = read(SHORT.replace("{preset: tiny}", loaded))
    assert recipe.weights == str(run)
    assert [block.mixer.heads for block in recipe.model.body.blocks] == [2, 4, 4, 4]  # type: ignore[attr-defined]
    assert read(write(recipe)) == recipe
    with pytest.raises(InputError):
        read(SHORT.replace("{preset: tiny}", loaded.replace("run", "ran")))


def test_names_of_what_ships() -> None:
    assert "tiny" in presets() and find_preset("tiny").is_file()
    for name in recipes():
        assert find(name) == recipes()[name]
        assert read(name).budget
    with pytest.raises(ConfigError, match="there is no recipe 'shakspear'; allowed: a file, or one of"):
        find("shakspear")


@pytest.mark.parametrize("name", presets())
def test_presets_are_models(name: str) -> None:
    assert read(SHORT.replace("tiny", name)).model.width


# Schedules


def test_the_cosine_warms_up_and_ends_where_it_should() -> None:
    cosine = Cosine(warmup=10, final=0.2)
    rates = [cosine.scale(step, 110) for step in range(120)]
    assert rates[0] == pytest.approx(1 / 11) and rates[10] == 1.0
    assert rates[60] == pytest.approx(0.6)
    assert rates[110] == rates[119] == pytest.approx(0.2)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:111]))


def test_a_run_shorter_than_its_warm_up_is_no_error() -> None:
    assert 0 < Cosine(warmup=100).scale(5, 10) < 1
    assert Cosine(warmup=0).scale(0, 0) == 1.0
    assert [Constant(warmup=1).scale(step, 3) for step in range(3)] == [0.5, 1.0, 1.0]
