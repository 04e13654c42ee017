"""A recipe file becomes a Recipe, and back.

Order: `model.preset` or `model.load` first, then repeats are written out, then the model's `set`, then what the command
line sets, in order. One reading at the end judges it all; everything but the model is judged before torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from anyformer.core.errors import ConfigError
from anyformer.core.explain import came, explain
from anyformer.core.overrides import expand, override
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.core.tables import nearest
from anyformer.core.versions import forward
from anyformer.recipes.layout import dump, rolled
from anyformer.recipes.schema import Recipe, Settings
from anyformer.recipes.shipped import find, find_preset, read_file
from anyformer.recipes.yaml import load, load_mapping, scalar

Change = str | tuple[str, Any]


def read(recipe: str | Path | Mapping[str, Any], sets: Iterable[Change] = ()) -> Recipe:
    """A recipe from a shipped name, a path, YAML text or a mapping.

    sets: changes in order, as the command line writes them, `optimizer.lr=3e-4`, or as (path, value).
    """
    source, tree = _tree(recipe)
    changes = [parse_set(change) if isinstance(change, str) else change for change in sets]
    try:
        return _resolved(tree, changes)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error)}") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def write(recipe: Recipe) -> str:
    """The YAML text that `read` reads as the same recipe."""
    tree = recipe.to_dict()
    order = ("model", *(key for key in tree if key != "model"))
    return dump(rolled({key: tree[key] for key in order}))


def parse_set(text: str) -> tuple[str, Any]:
    """`a.b=c` as (path, value): words and numbers as in YAML; commas outside brackets and quotes make a list."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {text!r}: write KEY=VALUE, such as optimizer.lr=3e-4")
    pieces = split_list(value)
    try:
        values = [_value(piece) for piece in pieces]
    except ValueError as error:
        raise ConfigError(f"--set {path.strip()}: {error}") from None
    return path.strip(), values[0] if len(values) == 1 else values


def split_list(text: str) -> list[str]:
    """The pieces between commas that stand outside brackets and quotes."""
    pieces, depth, quote, start = [""], 0, "", True
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and start:  # an apostrophe inside a word is no quote
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0 and not quote:
            pieces.append("")
        else:
            pieces[-1] += character
        start = character in ",([{:= "
    return [piece.strip() for piece in pieces]


def _value(text: str) -> Any:
    """One value: `[…]`, `{…}` and quoted text are YAML; anything else is a word, a number or a pattern as it stands."""
    return load(text, "value") if text[:1] in ("[", "{", '"', "'") else scalar(text)


def _tree(recipe: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """How messages name the recipe, and what it says."""
    if isinstance(recipe, Mapping):
        return "recipe", dict(recipe)
    if isinstance(recipe, str) and ("\n" in recipe or ": " in recipe):
        return "recipe", load_mapping(recipe, "recipe")
    path = find(str(recipe))
    return str(recipe), read_file(path)


def _resolved(tree: dict[str, Any], changes: list[tuple[str, Any]]) -> Recipe:
    tree = forward(tree, Recipe.VERSION, Recipe.MIGRATIONS, "recipe")
    names = Recipe.fields()
    for key in tree:
        if key not in names:
            raise ConfigError(f"{key}: no such key; allowed: {', '.join(names)}{nearest(key, names)}")
    settings = expand({key: value for key, value in tree.items() if key != "model"})
    for path, value in changes:
        if not _in_model(path):
            settings = override(settings, path, value, Recipe)
    settings = forward(settings, Recipe.VERSION, Recipe.MIGRATIONS, "recipe")
    from_dict(Settings, {key: value for key, value in settings.items() if key in Settings.fields()})
    if "model" not in tree:
        raise ConfigError("model: is missing")
    tree = {**settings, **_model(tree["model"])}
    for path, value in changes:
        if _in_model(path):
            tree = override(tree, path, value, Recipe)
    return from_dict(Recipe, tree)


def _in_model(path: str) -> bool:
    return path.partition(".")[0] == "model"


def _model(given: Any) -> dict[str, Any]:
    """What `model` says, with presets and runs looked up: the declaration, and where its weights come from."""
    if not isinstance(given, dict) or not given.keys() & {"preset", "load"}:
        return {"model": expand(given, "model")}
    if "set" in given and not isinstance(given["set"], dict):
        raise ConfigError(f"model.set: should be a mapping, path: value; came {came(given['set'])}")
    match given:
        case {"preset": str(name), **rest} if rest.keys() <= {"set"}:
            model, weights = expand(read_file(find_preset(name)), f"preset {name}"), {}
        case {"load": str(folder), **rest} if rest.keys() <= {"set"}:
            model, weights = _declared(folder), {"weights": _pinned(folder)}
        case _:
            raise ConfigError(
                f"model: should be {{preset: name}} or {{load: folder}}, and perhaps set; came {came(given)}"
            )
    for path, value in given.get("set", {}).items():
        try:
            model = override(model, path, value, AnyModel)
        except ConfigError as error:
            raise ConfigError(f"model.set: {error}") from None
    return {"model": model, **weights}


def _pinned(folder: str) -> str:
    """Of a name on the hub, what it stands for now, so that a run knows what it began with."""
    from anyformer.models.hub import pinned

    return pinned(folder)


def _declared(folder: str) -> Any:
    """The declaration of a trained model."""
    from anyformer.models.checkpoint import declaration

    return declaration(folder).to_dict()
