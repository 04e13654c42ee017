"""Declarations: what a spec says is all that a model is."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from anyformer.core.overrides import changed
from anyformer.core.roles import AnyModel
from anyformer.core.spec import ModelSpec, Ref, Spec, from_dict
from anyformer.core.tables import home, row, table
from anyformer.laws.broken import hold
from anyformer.laws.case import Case
from anyformer.laws.cases import around
from anyformer.laws.guess import guess
from anyformer.patterns.base import Pattern
from anyformer.patterns.causal import Causal
from anyformer.patterns.window import Window


def json_round_trip(case: Case) -> None:
    """A declaration that is written as JSON and read again is equal, and builds the same modules."""
    role, spec = _tabled(case)
    text = json.dumps(spec.to_dict(), allow_nan=False)
    again = from_dict(role, json.loads(text))
    hold(again == spec, f"{spec!r} came back as {again!r} from {text}")
    hold(json.dumps(again.to_dict()) == text, f"written again, it is another text than {text}")
    if role is AnyModel:
        shapes = {name: parameter.shape for name, parameter in again.build().named_parameters()}
        hold(shapes == {n: p.shape for n, p in case.model.named_parameters()}, "it builds other parameters")


def _tabled(case: Case) -> tuple[Any, Any]:
    """The whole model; the part alone where the part is no row of a table yet, and so has no name to be written by."""
    nameless = not isinstance(case.part, Pattern) and home(type(case.part)) is None
    return (type(case.part), case.part) if nameless else (AnyModel, case.spec)


def override(case: Case) -> None:
    """Every field is reached by its path, and by its path the part takes another one's place."""
    role, spec = _tabled(case)
    at = case.at if role is AnyModel else ""
    tree = _below(spec.to_dict(), at)
    for name in (tree if isinstance(tree, dict) else {}).keys() - {"kind", "version"}:
        path = f"{at}.{name}".lstrip(".")
        hold(changed(spec, {path: tree[name]}) == spec, f"{path}={tree[name]!r}, which it was, changed something")
    other = _other(case)
    if other is not None:
        changes = {"labels": list(case.spec.labels), case.at: tree}
        hold(changed(other, changes) == spec, f"{at}={tree!r} did not put the part in the other's place")


def _below(tree: Any, path: str) -> Any:
    """What stands at a path of plain data."""
    for step in path.split(".") if path else ():
        tree = tree[int(step)] if isinstance(tree, list) else tree[step]
    return tree


def _other(case: Case) -> ModelSpec | None:
    """The model with another row's part in the same place; None where no row fits there."""
    place = home(type(case.part))
    if isinstance(case.part, Pattern):
        return around(Window(3) if case.part == Causal() else Causal())[0]
    rows = [] if place is None else [row(place[0], kind) for kind in table(place[0])]
    for cls in rows:
        spec, at = around((cls.examples() or (guess(cls),))[0])
        if at and at == case.at and spec != case.spec and type(spec) is type(case.spec):
            return spec
    return None


def seed(case: Case) -> None:
    """The same seed gives the same weights, another one others; swapping a part leaves all other weights equal."""
    ours, same, new = (_weights(case.spec, number) for number in (3, 3, 4))
    hold(all(torch.equal(ours[name], same[name]) for name in ours), "the same seed gave other weights")
    drawn = [name for name, weight in ours.items() if bool((weight != weight.flatten()[0]).any())]
    alike = [name for name in drawn if torch.equal(ours[name], new[name])]
    hold(bool(drawn) and not alike, f"another seed gave the same {alike}")
    for one, another in combinations(drawn, 2):
        hold(not torch.equal(ours[one], ours[another]), f"{one} and {another} are drawn alike")
    other = _other(case)
    swapped = {} if other is None else _weights(other, 3)
    for name in ours.keys() & swapped.keys():
        if not name.startswith(f"{case.at}."):
            hold(torch.equal(ours[name], swapped[name]), f"another part at {case.at} changed the weights of {name}")


def _weights(spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    return dict(spec.build(seed=seed).named_parameters())


def shared(case: Case) -> None:
    """What a Ref names is one part: registered with its owner alone, the same object for all who use it."""
    model = case.spec.build()
    owned = dict(model.named_modules(remove_duplicate=False))
    for path, ref in _refs(case.spec, ""):
        user = model
        for step in path.split("."):
            user = getattr(user, step)
        hold(path not in owned, f"{path} is registered a second time, apart from its owner {ref.path}")
        hold(user is owned[ref.path], f"{path} is another part than its owner {ref.path}")


def _refs(value: Any, at: str) -> list[tuple[str, Ref]]:
    if isinstance(value, Ref):
        return [(at, value)]
    if isinstance(value, tuple):
        return [found for index, item in enumerate(value) for found in _refs(item, f"{at}.{index}")]
    if isinstance(value, Spec):
        names = value.fields()
        return [found for name in names for found in _refs(getattr(value, name), f"{at}.{name}".lstrip("."))]
    return []
