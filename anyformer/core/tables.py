"""Tables of parts: a package's TABLE maps a row's name to "file:Class", and nothing is imported before it is used.

Other people's parts join by entry points in the group named like the package (`anyformer.attention`).
"""

import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches


def nearest(word: str, words: Iterable[str]) -> str:
    """The end of an error message: the closest spelling, where one is close."""
    close = get_close_matches(word, list(words), 1)
    return f"; nearest: {close[0]!r}" if close else ""


@functools.cache
def _entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    """Other people's rows, of all tables: reading what is installed costs milliseconds, so once."""
    found = importlib.metadata.entry_points()
    return tuple(
        entry for group in found.groups if group.startswith("anyformer.") for entry in found.select(group=group)
    )


@functools.cache
def _targets(package: str) -> Mapping[str, tuple[str, ...]]:
    """Every "module:Class" that claims a name; more than one is a clash."""
    rows = {name: [f"{package}.{target}"] for name, target in importlib.import_module(package).TABLE.items()}
    for entry in _entry_points():
        if entry.group == package and entry.value not in rows.get(entry.name, []):
            rows.setdefault(entry.name, []).append(entry.value)
    return {name: tuple(claims) for name, claims in rows.items()}


@functools.cache
def table(package: str) -> Mapping[str, str]:
    """Our rows and other people's, as name -> "module:Class"; no row's file is imported."""
    return {name: claims[0] for name, claims in _targets(package).items()}


@functools.cache
def clashes(package: str) -> Mapping[str, tuple[str, ...]]:
    """The names that several rows claim; using one of them is an error."""
    return {name: claims for name, claims in _targets(package).items() if len(claims) > 1}


def row(package: str, kind: str) -> type:
    """The class behind a name, imported now."""
    rows = table(package)
    if kind not in rows:
        raise ValueError(f"{package} has no {kind!r}; it has: {', '.join(sorted(rows))}{nearest(kind, rows)}")
    if kind in clashes(package):
        raise ValueError(f"{package}: {kind!r} is claimed by {' and '.join(clashes(package)[kind])}; uninstall one")
    return _load(package, kind, rows[kind])


def _load(package: str, kind: str, target: str) -> type:
    module, _, name = target.partition(":")
    if module.startswith(f"{package}."):
        return getattr(importlib.import_module(module), name)  # ours: a failure here is a bug, shown whole
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a plug-in does, the rest works and the plug-in is named
        raise ValueError(f"{package}: {kind!r} ({target}) cannot be imported: {error!r}") from error
    if not isinstance(found, type):
        raise ValueError(f"{package}: {kind!r} ({target}) is {found!r}, not a class")
    return found


def kind_of(package: str, part: object) -> str:
    """The name of a part's row in one table: `row` read backwards."""
    kind = _kind(package, type(part))
    if kind is None:
        cls = type(part)
        raise ValueError(
            f"{cls.__module__}:{cls.__qualname__} has no row in {package}; it has: {', '.join(sorted(table(package)))}"
        )
    return kind


@functools.cache
def _kind(package: str, cls: type) -> str | None:
    rows = table(package)
    exact = [kind for kind, target in rows.items() if target == f"{cls.__module__}:{cls.__qualname__}"]
    if exact:
        return exact[0]
    # A plug-in may name the class where it is exported, not where it is defined.
    for kind, target in rows.items():
        module, _, name = target.partition(":")
        if name == cls.__qualname__ and module in sys.modules and getattr(sys.modules[module], name, None) is cls:
            return kind
    return None


@functools.cache
def home(cls: type) -> tuple[str, str] | None:
    """The (package, kind) under which a class is a row, or None for a class that no table knows."""
    package = cls.__module__.rpartition(".")[0]
    groups = {entry.group for entry in _entry_points()}
    ours = {package} if "TABLE" in vars(sys.modules.get(package, sys)) else set()
    for candidate in sorted(ours | groups):
        kind = _kind(candidate, cls)
        if kind is not None:
            return candidate, kind
    return None
