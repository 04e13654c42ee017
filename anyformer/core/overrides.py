"""Changes of a declaration that is still plain data: repeats written out, and one value set by its path.

The path in the spec is the path of the module: `body.blocks.4-7.mixer.heads`, `body.blocks.*.mixer.pattern`.
A wrapper's field `inner` is seen through. Whole declarations are judged afterwards, once, by reading them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from anyformer.core.errors import ConfigError
from anyformer.core.explain import came
from anyformer.core.spec import Rows, Spec, adapter, from_dict
from anyformer.core.tables import home, nearest

MOST = 10_000  # items of one list: no model is that deep, and a slip should not fill the memory

S = TypeVar("S", bound=Spec)


def expand(tree: Any, at: str = "") -> Any:
    """A copy with every `{repeat: 12, block: …}` of a list written out; a list as block is repeated as a whole."""
    if isinstance(tree, dict):
        if "repeat" in tree:
            raise ConfigError(f"{at or 'here'}: a repeat stands in a list: [{{repeat: 12, block: ...}}]")
        return {key: expand(value, _below(at, key)) for key, value in tree.items()}
    if not isinstance(tree, list | tuple):
        return tree
    items: list[Any] = []
    for item in tree:
        items.extend(_repeated(item, _below(at, len(items))))
        if len(items) > MOST:
            raise ConfigError(f"{at}: more than {MOST} items")
    return items


def _repeated(item: Any, at: str) -> list[Any]:
    if not isinstance(item, dict) or "repeat" not in item:
        return [expand(item, at)]
    times, block = item["repeat"], item.get("block")
    if set(item) != {"repeat", "block"}:
        raise ConfigError(f"{at}: a repeat has the keys repeat and block; came {', '.join(map(str, item))}")
    if type(times) is not int or not 1 <= times <= MOST:
        raise ConfigError(f"{at}.repeat: should be a whole number from 1 to {MOST}; came {came(times)}")
    once = expand(block if isinstance(block, list) else [block], at)
    if times * len(once) > MOST:
        raise ConfigError(f"{at}: more than {MOST} items")
    return [copy.deepcopy(part) for _ in range(times) for part in once]


def override(tree: Any, path: str, value: Any, role: Any) -> Any:
    """The tree with one value set; role: what the tree declares, such as `Recipe` or `AnyModel`.

    A part that is swapped by a bare name keeps what was set of the fields that both have. A field that was set away
    from its default and that the new part lacks is an error; `{kind: name}` drops everything.
    """
    keys = path.split(".")
    if not all(keys):
        raise ConfigError(f"{path!r} is no path; write names with dots between them, such as body.blocks.*.mixer")
    return _Override(expand(value, path)).into(tree, _shape(role), keys, "")


def changed(part: S, changes: Mapping[str, Any]) -> S:
    """A spec with some values set, in order; the outcome is judged once, at the end."""
    at = home(type(part))
    role: Any = Annotated[type(part) if at is None else Spec, Rows(at[0])] if at else type(part)
    tree = adapter(role).dump_python(part, mode="json")
    for path, value in changes.items():
        tree = override(tree, path, value, role)
    return from_dict(role, tree)


def _below(at: str, key: object) -> str:
    return f"{at}.{key}".lstrip(".")


# What stands at a place, as far as a path can go below it.


@dataclass(frozen=True)
class _Items:
    """A list: the role of all its items, or of each."""

    roles: tuple[Any, ...]
    same: bool

    def role(self, index: int) -> Any:
        return self.roles[0 if self.same else index]


@dataclass(frozen=True)
class _Entries:
    """A mapping with free keys."""

    role: Any


_Shape = Rows | _Items | _Entries | type[Spec] | None  # None: a leaf


def _shape(role: Any) -> _Shape:
    arguments = get_args(role)
    if get_origin(role) is Annotated:
        rows = [note for note in arguments[1:] if isinstance(note, Rows)]
        return rows[0] if rows else _shape(arguments[0])
    if get_origin(role) in (Union, UnionType):
        some = [argument for argument in arguments if argument is not NoneType]
        return _shape(some[0]) if len(some) == 1 else None
    if get_origin(role) is tuple:
        same = len(arguments) == 2 and arguments[1] is Ellipsis
        return _Items(arguments[:1] if same else arguments, same)
    if get_origin(role) is dict:
        return _Entries(arguments[1])
    return role if isinstance(role, type) and issubclass(role, Spec) else None


@functools.cache
def roles(cls: type[Spec]) -> Mapping[str, Any]:
    """The role of every field."""
    return get_type_hints(cls, include_extras=True)


def default(cls: type[Spec], name: str) -> Any:
    """What a field holds where nothing is written: plain data, None where it has to be written."""
    if _required(cls, name):
        return None
    field = cls.__pydantic_fields__[name]  # pyright: ignore[reportAttributeAccessIssue]
    return adapter(roles(cls)[name]).dump_python(field.get_default(call_default_factory=True), mode="json")


@dataclass(frozen=True)
class _Override:
    """One value on its way down to where it belongs."""

    value: Any

    def into(self, node: Any, shape: _Shape, keys: list[str], at: str) -> Any:
        """The node with the value set below it, at `keys`."""
        match shape:
            case Rows():
                return self._into_part(node, shape, keys, at)
            case _ if not keys:
                return self.value
            case _Items():
                return self._into_items(node, shape, keys, at)
            case _Entries() if isinstance(node, dict | None):
                below = self.into((node or {}).get(keys[0]), _shape(shape.role), keys[1:], _below(at, keys[0]))
                return {**(node or {}), keys[0]: below}
            case type() if isinstance(node, dict | Spec | None):
                tree = node.to_dict() if isinstance(node, Spec) else node or {}
                return self._into_fields(tree, shape, keys, at)
        raise ConfigError(f"{at}: {came(node)} has nothing below it; came {keys[0]!r}")

    def _into_items(self, node: Any, shape: _Items, keys: list[str], at: str) -> Any:
        if not isinstance(node, list | tuple):
            raise ConfigError(f"{at}: {came(node)} is no list; came {keys[0]!r}")
        chosen = set(_indices(keys[0], len(node), at))
        return [
            self.into(item, _shape(shape.role(i)), keys[1:], _below(at, i)) if i in chosen else item
            for i, item in enumerate(node)
        ]

    def _into_part(self, node: Any, rows: Rows, keys: list[str], at: str) -> Any:
        tree = rows.write(node) if isinstance(node, Spec) else rows.named(node)
        if keys in ([], ["kind"]):
            swap = rows.text is None and isinstance(self.value, str) and isinstance(tree, dict) and "kind" in tree
            return self._swapped(tree, rows, at) if swap else self.value
        if isinstance(tree, dict) and "ref" in tree:
            raise ConfigError(
                f"{at} is shared, {{ref: {tree['ref']}}}; set {_below(tree['ref'], '.'.join(keys))} instead"
            )
        if not isinstance(tree, dict) or "kind" not in tree:
            raise ConfigError(f"{at}: {came(tree)} has nothing below it; came {keys[0]!r}; set {at} itself")
        return self._into_fields(tree, _find(rows, tree["kind"], at), keys, at)

    def _into_fields(self, tree: dict[str, Any], cls: type[Spec], keys: list[str], at: str) -> Any:
        name, names = keys[0], cls.fields()
        if name not in names:
            if "inner" in names:
                return self._into_fields(tree, cls, ["inner", *keys], at)
            raise ConfigError(f"{_below(at, name)}: no such key; allowed: {', '.join(names)}{nearest(name, names)}")
        node = tree[name] if name in tree else default(cls, name)
        return {**tree, name: self.into(node, _shape(roles(cls)[name]), keys[1:], _below(at, name))}

    def _swapped(self, tree: dict[str, Any], rows: Rows, at: str) -> dict[str, Any]:
        old, new = _find(rows, tree["kind"], at), _find(rows, self.value, at)
        told = {key: value for key, value in tree.items() if key in old.fields() and _told(old, key, value)}
        lost = [key for key in told if key not in new.fields() and not _required(old, key)]
        if lost:
            values = " and ".join(f"{key} ({came(tree[key])})" for key in lost)
            raise ConfigError(f"{at}: {self.value} has no {values}; write {{kind: {self.value}}} to drop what was set")
        return {"kind": self.value, **{key: value for key, value in told.items() if key in new.fields()}}


def _find(rows: Rows, kind: Any, at: str) -> type[Spec]:
    try:
        return rows.find(kind)
    except ValueError as error:
        raise ConfigError(f"{at}: {error}") from None


def _told(cls: type[Spec], name: str, value: Any) -> bool:
    """Whether a field is away from its default, so that it does not matter whether defaults are written out."""
    if _required(cls, name):
        return True
    field = cls.__pydantic_fields__[name]  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return from_dict(roles(cls)[name], value) != field.get_default(call_default_factory=True)
    except ValueError:
        return True


def _required(cls: type[Spec], name: str) -> bool:
    return cls.__pydantic_fields__[name].is_required()  # pyright: ignore[reportAttributeAccessIssue]


def _indices(key: str, length: int, at: str) -> Iterator[int]:
    """`*`, `5` or `4-7`."""
    if key == "*":
        return iter(range(length))
    first, dash, last = key.partition("-")
    if not (first.isdecimal() and first.isascii()) or (dash and not (last.isdecimal() and last.isascii())):
        raise ConfigError(f"{at}: {key!r} is no index; write 0 to {length - 1}, a range such as 0-{length - 1}, or *")
    low, high = int(first), int(last or first)
    if not low <= high < length:
        raise ConfigError(f"{at}: there is no {key}; there are {length}, 0 to {length - 1}")
    return iter(range(low, high + 1))
