"""Declarations: what a spec says is all that a model is."""

from __future__ import annotations

import json
from typing import Any

import torch

from anyformer.core.overrides import changed
from anyformer.core.roles import AnyModel
from anyformer.core.spec import PartSpec, Ref, Spec, adapter, from_dict
from anyformer.core.tables import home
from anyformer.laws.broken import hold
from anyformer.laws.case import Case
from anyformer.laws.cases import around, parts_in
from anyformer.patterns.base import Pattern


def json_round_trip(case: Case) -> None:
    """A declaration that is written as JSON and read again is equal, and builds the same modules."""
    role, spec = _tabled(case)
    text = json.dumps(_plain(spec), allow_nan=False)
    again = from_dict(role, json.loads(text))
    hold(again == spec, f"{spec!r} came back as {again!r} from {text}")
    hold(json.dumps(_plain(again)) == text, f"written again, it is another text than {text}")
    if role is AnyModel:
        shapes = {name: parameter.shape for name, parameter in again.build().named_parameters()}
        hold(shapes == {n: p.shape for n, p in case.model.named_parameters()}, "it builds other parameters")


def _tabled(case: Case) -> tuple[Any, Any]:
    """The whole model; the part alone where the part is no row of a table yet, and so has no name to be written by."""
    nameless = not isinstance(case.part, Pattern) and home(type(case.part)) is None
    return (type(case.part), case.part) if nameless else (AnyModel, case.spec)


def _plain(spec: Spec) -> dict[str, Any]:
    return spec.to_dict()


def override(case: Case) -> None:
    """Every field is reached by its path, and the part itself is put in another's place by it."""
    role, spec = _tabled(case)
    tree, at = _plain(spec), case.at if role is AnyModel else ""
    for step in at.split(".") if at else ():
        tree = tree[int(step)] if isinstance(tree, list) else tree[step]
    if isinstance(tree, dict):
        for name in (name for name in tree if name != "kind"):
            path = f"{at}.{name}".lstrip(".")
            hold(changed(spec, {path: tree[name]}) == spec, f"{path}={tree[name]!r}, which it was, changed something")
    if at:
        hold(changed(_other(case), {at: tree}) == spec, f"{at}={tree!r} did not put the part there")


def _other(case: Case) -> Any:
    """The same model with something else in the part's place."""
    model, _ = around(case.part)
    place, _, name = case.at.rpartition(".")
    del place, name
    return model


def seed(case: Case) -> None:
    """The same seed gives the same weights, another one others; a part that is swapped leaves all other weights equal."""
    first, second, third = (case.spec.build(seed=number) for number in (3, 3, 4))
    ours, same, other = (dict(model.named_parameters()) for model in (first, second, third))
    hold(all(torch.equal(ours[name], same[name]) for name in ours), "the same seed gave other weights")
    drawn = [name for name, weight in ours.items() if weight.numel() > 1 and bool((weight != weight.flatten()[0]).any())]
    alike = [name for name in drawn if torch.equal(ours[name], other[name])]
    hold(not alike, f"another seed gave the same {alike}")
    hold(bool(drawn), "nothing is drawn")


def shared(case: Case) -> None:
    """What a Ref names is one part: registered with its owner alone, the same object for all who use it."""
    model = case.spec.build()
    owned = dict(model.named_modules())
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
