"""Patterns of paths: which parts of a model, or of its weights, are meant.

`body.blocks.*.mixer.q`: `*` is any one name, `4-7` any of these numbers; a path means the part and all that is below
it. A wrapper's `inner` is seen through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from anyformer.core.errors import ConfigError
from anyformer.core.tables import nearest


def steps(path: str) -> list[str]:
    """The names of a path as people may write it, without `inner`."""
    return [name for name in path.split(".") if name != "inner"]


def means(pattern: str, path: str) -> bool:
    """Whether what is at `path` is what the pattern names, or below it."""
    wanted, names = steps(pattern), steps(path)
    return len(wanted) <= len(names) and all(map(_fits, wanted, names))


def chosen(patterns: Iterable[str], paths: Collection[str], key: str, what: str) -> list[str]:
    """Those of the paths that any of the patterns means, in their order; each pattern has to mean one of them.

    key, what: where the patterns are written, and what they name, for the error.
    """
    found: set[str] = set()
    for pattern in patterns:
        some = {path for path in paths if means(pattern, path)}
        if not some:
            raise ConfigError(f"{key}: {pattern!r} names no {what} of this model{_hint(pattern, paths)}")
        found |= some
    return [path for path in paths if path in found]


def _fits(step: str, name: str) -> bool:
    first, dash, last = step.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and name.isdecimal():
        return int(first) <= int(name) <= int(last)
    return step in ("*", name)


def _hint(pattern: str, paths: Iterable[str]) -> str:
    """Up to where the pattern fits, and what could be written there."""
    known, wanted = [steps(path) for path in paths], steps(pattern)
    for depth, step in enumerate(wanted):
        deeper = [names for names in known if depth < len(names)]
        known = [names for names in deeper if _fits(step, names[depth])]
        if not known:
            here = list(dict.fromkeys(names[depth] for names in deeper))
            some = ", ".join([*here[:12], *(["..."] if len(here) > 12 else [])]) or "nothing below it"
            return f"; {'.'.join(wanted[:depth]) or 'it'} has: {some}{nearest(step, here)}"
    return ""
