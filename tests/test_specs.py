"""Specs: strict, frozen, compared by value; `kind` both ways; tables, plug-ins, refs, JSON and its schema."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from pydantic import ValidationError
from torch import nn

from anyformer.blocks.sequential import Block
from anyformer.core import tables
from anyformer.core.explain import came, explain
from anyformer.core.overrides import _Items, _shape, roles
from anyformer.core.roles import AnyModel, Norm
from anyformer.core.schema import schema
from anyformer.core.spec import Count, ModelSpec, Positive, Ref, Rows, Site, Spec, adapter, from_dict, spec
from anyformer.core.versions import forward
from anyformer.feedforward.gated import Gated
from anyformer.norms.layer import LayerNorm
from anyformer.norms.rms import RMSNorm
from anyformer.positions.rotary import Rotary

MODULES = ("architectures", "attention", "blocks", "embeddings", "feedforward", "flows", "heads", "memory", "norms")
MODULES += ("positions", "residuals")
PLAIN = ("adapters", "data", "data.tokenizers", "training.objectives", "training.schedules")


@spec
class Thing(Spec):
    """A holder for these tests."""

    norm: Norm
    other: Norm | None = None
    more: tuple[Norm, ...] = ()
    count: Count = 3
    rate: Positive = 1.0


def refused(*args: Any, **fields: Any) -> str:
    """What is said about fields that Thing refuses."""
    with pytest.raises(ValidationError) as error:
        Thing(*args, **fields)
    with pytest.raises(ValidationError) as again:
        from_dict(Thing, fields)
    assert args or explain(error.value) == explain(again.value)
    return explain(error.value)


# Values


def test_counts_may_be_written_as_floats_and_rates_as_whole_numbers() -> None:
    thing = from_dict(Thing, {"norm": "rms", "count": 3e9, "rate": 1})
    assert (thing.count, type(thing.count)) == (3_000_000_000, int)
    assert (thing.rate, type(thing.rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"count": 2.5}, "count: should be a valid integer; came 2.5 (a number)"),
        ({"count": "3"}, "count: should be a valid integer; came '3' (text)"),
        ({"count": True}, "count: should be a valid integer; came True (true/false)"),
        ({"count": 0}, "count: should be greater than or equal to 1; came 0 (a whole number)"),
        ({"count": 10**30}, "count: should be less than or equal to 9007199254740992; came 1000000000000000000"),
        ({"count": 10**5000}, "count: should be less than or equal to 9007199254740992; came a whole number of more"),
        ({"rate": "0.1"}, "rate: should be a valid number; came '0.1' (text)"),
        ({"rate": True}, "rate: should be a valid number; came True (true/false)"),
        ({"rate": float("nan")}, "rate: should be a finite number"),
        ({"rate": 0}, "rate: should be greater than 0; came 0"),
        ({"coutn": 1}, "coutn: no such key; allowed: norm, other, more, count, rate; nearest: 'count'"),
        (
            {"norm": None},
            "norm: should be a row's name or {kind: name, ...}; names: layer, no_norm, rms, rms_offset, scale; "
            "came null",
        ),
        ({"norm": "rm"}, "norm: no 'rm' here; allowed: layer, no_norm, rms, rms_offset, scale; nearest: 'rms'"),
        ({"norm": {"eps": 1.0}}, "norm: should be a row's name or {kind: name, ...}"),
        ({"norm": {"kind": "rms", "epsilon": 1.0}}, "norm.epsilon: no such key; allowed: eps"),
        ({"norm": {"kind": "rms", "eps": "1"}}, "norm.eps: should be a valid number; came '1' (text)"),
        ({"norm": Rotary()}, "norm: should be one of: layer, no_norm, rms, rms_offset, scale; came Rotary("),
        ({"norm": {"ref": "a..b"}}, "norm.ref: String should match pattern"),
        ({"norm": {"ref": "a", "eps": 1}}, "norm.eps: no such key; allowed: ref"),
        ({"more": "rms"}, "more: should be a list; came 'rms' (text)"),
        ({"more": ["rms", "x", "x", "layer", "x"]}, "more.1-2,4: no 'x' here"),
    ],
)
def test_one_line_says_where_what_came_and_what_is_allowed(fields: dict[str, Any], says: str) -> None:
    assert refused(**{"norm": "rms", **fields}).startswith(says)


def test_what_is_missing_is_named() -> None:
    assert refused() == "norm: is missing"


def test_specs_are_frozen_keyword_only_and_compared_by_value() -> None:
    thing = Thing(norm=RMSNorm(), more=[LayerNorm(), "rms"])  # type: ignore[list-item]
    assert thing == Thing(norm=RMSNorm(), more=(LayerNorm(), RMSNorm()))
    assert hash(thing) == hash(Thing(norm=RMSNorm(), more=(LayerNorm(), RMSNorm())))
    assert RMSNorm() != LayerNorm()
    with pytest.raises(AttributeError):
        thing.count = 4  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Thing(RMSNorm())  # type: ignore[misc]


def test_a_value_is_shown_short() -> None:
    assert len(came("x" * 1000)) < 80


# JSON


def samples(role: Any, depth: int = 0) -> Iterator[Any]:
    """Values of a role: every row of its tables once, and near the top every part inside every holder."""
    shape = _shape(role)
    if isinstance(shape, Rows):
        kinds = [(package, kind) for package in shape.packages for kind in tables.table(package)]
        for package, kind in kinds if depth < 3 else kinds[:1]:
            yield from instances(tables.row(package, kind), depth)
    elif isinstance(shape, _Items):
        yield from ((item,) for item in samples(shape.role(0), depth))
    elif shape is not None and not hasattr(shape, "role"):
        yield from instances(shape, depth)


def instances(cls: Any, depth: int) -> Iterator[Any]:
    """One instance for every part that a field can hold; what has to be given gets the first value that is accepted."""
    fields, must = cls.__pydantic_fields__, {}
    for name, role in roles(cls).items():
        if name in fields and fields[name].is_required():
            must[name] = next(samples(role, depth + 3), None) or next(
                v for v in (2, 0.5, "x", ("x", "y"), (0.5, 2.0)) if accepted(role, v)
            )
    yield cls(**must)
    for name, role in roles(cls).items() if depth < 2 else ():
        for part in samples(role, depth + 1) if name in fields else ():
            yield cls(**{**must, name: part})


def accepted(role: Any, value: Any) -> bool:
    try:
        adapter(role).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("package", [f"anyformer.{name}" for name in (*MODULES, *PLAIN)])
def test_every_row_inside_every_holder_is_itself_after_json(package: str) -> None:
    role = Annotated[Spec, Rows(package)]
    count = 0
    for part in samples(role):
        tree = json.loads(json.dumps(part.to_dict(), allow_nan=False))
        assert from_dict(role, tree) == part
        count += 1
    assert count >= len(tables.table(package))


@pytest.mark.parametrize("package", [f"anyformer.{name}" for name in MODULES])
def test_no_field_has_a_name_that_modules_use(package: str) -> None:
    """A part is registered under its field's name: `train` or `type` would replace a method."""
    from anyformer.core.layer import Part

    used = {*dir(Part), "path", "axes", "fills"}
    assert {*dir(nn.Module)} <= used
    for kind in tables.table(package):
        assert not used & {*tables.row(package, kind).fields()}, kind  # type: ignore[attr-defined]


def test_refs_are_written_ref() -> None:
    thing = Thing(norm=Ref("body.blocks.0.norm"))
    assert thing.to_dict()["norm"] == {"ref": "body.blocks.0.norm"}
    assert from_dict(Thing, thing.to_dict()) == thing


# Tables and plug-ins


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`installed("anyformer.norms", mine="module:Class")` is what installing a package does; files go to tmp_path."""
    caches = (tables._entry_points, tables._targets, tables.table, tables.clashes, tables._kind, tables.home)

    def clear() -> None:
        for cache in caches:
            cache.cache_clear()

    def install(group: str, **rows: str) -> None:
        found = EntryPoints(EntryPoint(name, at, group) for name, at in rows.items())
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda: found)
        clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    monkeypatch.undo()
    clear()


PLUGIN = """
from anyformer.core.spec import NormSpec, Site, spec

@spec
class Mine(NormSpec):
    power: float = 2.0

    def build(self, at: Site):
        raise NotImplementedError
"""


def test_a_plug_in_is_a_row_like_any_other(installed: Any, tmp_path: Path) -> None:
    (tmp_path / "plug_in_norms.py").write_text(PLUGIN)
    installed("anyformer.norms", mine="plug_in_norms:Mine")
    thing = from_dict(Thing, {"norm": {"kind": "mine", "power": 3}})
    assert thing.to_dict()["norm"] == {"kind": "mine", "power": 3.0}
    assert from_dict(Thing, thing.to_dict()) == thing


def test_nothing_is_imported_before_it_is_used(installed: Any, tmp_path: Path) -> None:
    (tmp_path / "plug_in_loud.py").write_text("raise RuntimeError('imported')")
    installed("anyformer.norms", loud="plug_in_loud:Mine")
    assert "loud" in tables.table("anyformer.norms")
    assert from_dict(Thing, {"norm": "rms"}) == Thing(norm=RMSNorm())
    said = refused(norm="loud")
    assert "'loud' (plug_in_loud:Mine) cannot be imported: RuntimeError('imported')" in said


def test_a_plug_in_that_is_no_spec_is_named(installed: Any, tmp_path: Path) -> None:
    (tmp_path / "plug_in_odd.py").write_text("class Odd: ...\nodd = 3")
    installed("anyformer.norms", odd="plug_in_odd:Odd", three="plug_in_odd:odd", gone="plug_in_odd:Gone")
    assert "'odd' is plug_in_odd.Odd, which is no Spec" in refused(norm="odd")
    assert "is 3, not a class" in refused(norm="three")
    assert "'gone' (plug_in_odd:Gone) cannot be imported: AttributeError" in refused(norm="gone")


def test_a_clash_is_raised_when_the_name_is_used(installed: Any) -> None:
    installed("anyformer.norms", rms="plug_in_norms:Mine")
    assert from_dict(Thing, {"norm": "layer"}).norm == LayerNorm()
    assert refused(norm="rms").startswith("norm: anyformer.norms: 'rms' is claimed by anyformer.norms.rms:RMSNorm and")
    assert set(tables.clashes("anyformer.norms")) == {"rms"}


def test_a_class_without_a_row_can_be_tried_but_not_written() -> None:
    @spec
    class Draft(LayerNorm.__mro__[1]):  # type: ignore[misc]
        def build(self, at: Site) -> Any:
            return nn.Identity()

    thing = Thing(norm=Draft())
    with pytest.raises(Exception, match=r"Draft is in no table; allowed here: layer, no_norm, rms, rms_offset, scale"):
        thing.to_dict()


def test_names_are_unique_over_all_tables_of_layers() -> None:
    packages = ("anyformer.blocks", "anyformer.memory", "anyformer.attention", "anyformer.feedforward")
    names = [name for package in packages for name in tables.table(package)]
    assert len(names) == len(set(names))


def test_a_layer_of_another_table_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"should be one of: big_bird, cross, .*Gated\), a row of anyformer.feedforward"
    ):
        Block(mixer=Gated(hidden=8))


# Sites


@spec
class Leaf(LayerNorm.__mro__[1]):  # type: ignore[misc]
    """Builds a module of its own."""

    def build(self, at: Site) -> nn.Module:
        return nn.Identity()


def test_a_ref_is_the_module_that_its_owner_built() -> None:
    top = Site("", 8)
    encoder = top.at("encoder").at("inner", width=4)
    owned = encoder.build(Leaf(), "norm")
    assert encoder.path == "encoder.inner" and encoder.width == 4
    assert top.build(Ref("encoder.inner.norm"), "again") is owned
    assert top.build(Ref("encoder.norm"), "through") is owned  # a wrapper's `inner` is seen through
    assert top.build(Leaf(), "norm") is not owned


def test_a_ref_to_what_is_not_built_yet_names_the_nearest() -> None:
    top = Site("", 8)
    top.build(Leaf(), "shared")
    with pytest.raises(ValueError, match=r"user: ref 'shard' is no part built before this one; nearest: 'shared'"):
        top.build(Ref("shard"), "user")


# Versions


def test_older_declarations_are_carried_forward_and_newer_refused() -> None:
    steps = {1: lambda tree: {"b": tree["a"]}, 2: lambda tree: {"c": tree["b"] + 1}}
    assert forward({"a": 1, "version": 1}, 3, steps, "model") == {"c": 2, "version": 3}
    assert forward({"c": 5}, 3, steps, "model") == {"c": 5}
    with pytest.raises(ValueError, match="this model has version 9 and this anyformer reads up to 3; install a newer"):
        forward({"version": 9}, 3, steps, "model")


def test_a_model_writes_its_version_and_refuses_a_newer_one() -> None:
    model = next(samples(AnyModel))
    assert model.to_dict()["version"] == ModelSpec.VERSION
    with pytest.raises(ValidationError) as error:
        from_dict(AnyModel, {**model.to_dict(), "version": 99, "a_new_key": 1})
    assert explain(error.value).startswith("this model has version 99 and this anyformer reads up to 1")


def test_an_older_model_is_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    model = next(samples(AnyModel))
    old = {**model.to_dict(), "version": 1, "breadth": model.width}
    del old["width"]
    monkeypatch.setattr(ModelSpec, "VERSION", 2)
    monkeypatch.setattr(
        ModelSpec,
        "MIGRATIONS",
        {1: lambda tree: {**{k: v for k, v in tree.items() if k != "breadth"}, "width": tree["breadth"]}},
    )
    assert from_dict(AnyModel, old).to_dict() == {**model.to_dict(), "version": 2}


# JSON Schema


def test_the_schema_describes_what_is_written() -> None:
    made = schema(Thing)
    jsonschema.Draft202012Validator.check_schema(made)
    check = jsonschema.Draft202012Validator(made)
    good: list[dict[str, Any]] = [
        {"norm": "rms"},
        {"norm": {"kind": "layer", "eps": 1e-3}, "other": {"ref": "a.b"}},
        {"norm": "rms", "more": ["layer", {"repeat": 3, "block": "rms"}, {"repeat": 2, "block": ["rms", "layer"]}]},
        Thing(norm=RMSNorm(), other=Ref("a.b"), more=(LayerNorm(),)).to_dict(),
    ]
    for tree in good:
        check.validate(tree)
    for tree in ({}, {"norm": "rm"}, {"norm": {"kind": "rms", "epsilon": 1}}, {"norm": "rms", "nrom": 1}):
        assert not check.is_valid(tree)


def test_defaults_in_the_schema_are_as_they_would_be_written() -> None:
    made = schema(tables.row("anyformer.attention", "softmax"))  # type: ignore[arg-type]
    assert made["properties"]["pattern"]["default"] == "causal"
    assert made["properties"]["position"]["default"] == {"kind": "none"}


# Imports


@pytest.mark.parametrize(
    "module", ["core.spec", "core.roles", "core.overrides", "core.schema", "patterns.base", "recipes.read"]
)
def test_torch_stays_out(module: str) -> None:
    code = f"import sys, anyformer.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
