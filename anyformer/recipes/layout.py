"""YAML that people like to read: what fits stands on one line, equal blocks in a row are one repeat.

What is written here is what `anyformer.recipes.yaml` reads back as the same tree.
"""

import re
from itertools import groupby
from typing import Any

from anyformer.recipes.yaml import scalar

WIDTH = 100
PLAIN = re.compile(r"[^\W\d][\w ()|&~./+-]*(?<! )")  # needs no quotes, inside {…} and […] either


def dump(tree: dict[str, Any]) -> str:
    """A tree of mappings, lists and scalars as YAML."""
    return "".join(f"{line}\n" for line in _block(tree, 0) or ["{}"])


def rolled(tree: Any) -> Any:
    """Equal mappings that follow each other in a list become `{repeat: n, block: …}`: `expand` read backwards."""
    if isinstance(tree, dict):
        return {key: rolled(value) for key, value in tree.items()}
    if not isinstance(tree, list):
        return tree
    runs = [(item, len(list(run))) for item, run in groupby(map(rolled, tree))]
    return [
        part
        for item, times in runs
        for part in ([{"repeat": times, "block": item}] if times > 1 and isinstance(item, dict) else [item] * times)
    ]


def _block(tree: dict[str, Any], indent: int) -> list[str]:
    """One line a key, more below it where its value does not fit."""
    lines = []
    for key, value in tree.items():
        line = f"{' ' * indent}{_word(key)}: {_flow(value)}"
        if len(line) <= WIDTH or not value or not isinstance(value, dict | list):
            lines.append(line)
        elif isinstance(value, dict):
            lines += [f"{' ' * indent}{_word(key)}:", *_block(value, indent + 2)]
        else:
            lines += [f"{' ' * indent}{_word(key)}:", *_items(value, indent + 2)]
    return lines


def _items(values: list[Any], indent: int) -> list[str]:
    lines = []
    for value in values:
        line = f"{' ' * indent}- {_flow(value)}"
        if len(line) > WIDTH and value and isinstance(value, dict):
            first, *more = _block(value, indent + 2)
            lines += [f"{' ' * indent}- {first[indent + 2 :]}", *more]
        else:
            lines.append(line)
    return lines


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_word(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return _word(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _word(text: str) -> str:
    """Text, quoted where it would read as something else."""
    if PLAIN.fullmatch(text) and isinstance(scalar(text), str):
        return text
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'
