"""An example of a part: its required fields filled by their names and types, so that a new row enrols itself.

Values are small and odd, so that a size that is mistaken for another one shows.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from anyformer.core.explain import explain
from anyformer.core.overrides import roles
from anyformer.core.spec import Ref, Rows, Spec, from_dict

S = TypeVar("S", bound=Spec)

WIDTH, HEADS, VOCABULARY = 24, 4, 29
MIXER = {"kind": "softmax", "heads": HEADS, "kv_heads": 2, "position": "rotary"}
BLOCK = {"kind": "block", "mixer": MIXER, "ff": {"kind": "mlp", "hidden": 20}}
STACK = {"kind": "stack", "blocks": [BLOCK]}
FULL = {"kind": "block", "mixer": {**MIXER, "pattern": "full"}, "ff": {"kind": "mlp", "hidden": 20}}
IMAGES = {
    "kind": "encoder",
    "width": 16,
    "embedding": {"kind": "patches", "size": 3, "image": 7},
    "body": {"kind": "stack", "blocks": [FULL]},
    "head": {"kind": "sentence", "size": WIDTH},
}
READER = {**BLOCK, "cross": {"kind": "cross", "heads": HEADS, "kv_heads": 2}}

# By the field's name, where such a field exists, required or not.
NAMES: dict[str, Any] = {
    "width": WIDTH,
    "vocabulary": VOCABULARY,
    "heads": HEADS,
    "kv_heads": 2,
    "hidden": 20,
    "segment": 5,
    "slots": 2,
    "count": 2,
    "size": 5,
    "length": 97,
    "label": "kind",
    "buckets": 8,
    "furthest": 20,
    "encoder": {"kind": "stack", "blocks": [FULL]},
    "decoder": {"kind": "stack", "blocks": [READER]},
}
# By the first of a role's tables, where the field is required.
TABLES: dict[str, Any] = {
    "anyformer.blocks": STACK,
    "anyformer.attention": MIXER,
    "anyformer.feedforward": {"kind": "mlp", "hidden": 20},
    "anyformer.norms": "rms",
    "anyformer.positions": "rotary",
    "anyformer.residuals": "pre",
    "anyformer.flows": "plain",
    "anyformer.embeddings": "tokens",
    "anyformer.heads": "tied",
    "anyformer.patterns": "causal",
    "anyformer.architectures": IMAGES,
}
TYPES: dict[type, Any] = {bool: False, int: 3, float: 0.5, str: "kind"}


def guess(cls: type[S]) -> S:
    """An instance of a spec class, by the names and types of its fields."""
    required = {name: _value(cls, name, role) for name, role in roles(cls).items() if _required(cls, name)}
    known = {name: NAMES[name] for name in cls.fields() if name in NAMES}
    refusals = []
    for fields in ({**required, **known}, required):
        try:
            return from_dict(cls, fields)
        except ValidationError as error:
            refusals.append(explain(error))
    raise ValueError(f"{cls.__name__}: no example could be guessed ({refusals[0]}); {_advice(cls)}")


def _advice(cls: type[Spec]) -> str:
    return f"give {cls.__name__} a classmethod `examples` that returns some of its own"


def _required(cls: type[Spec], name: str) -> bool:
    fields = cls.__pydantic_fields__  # pyright: ignore[reportAttributeAccessIssue]
    return name in fields and fields[name].is_required()


def _value(cls: type[Spec], name: str, role: Any) -> Any:
    value = NAMES.get(name, _of(role))
    if value is None:
        raise ValueError(f"{cls.__name__}.{name}: no value is known for such a field; {_advice(cls)}")
    return value


def _of(role: Any) -> Any:
    """A value of a role; None where none is known."""
    arguments = get_args(role)
    if get_origin(role) is Annotated:
        rows = [note for note in arguments[1:] if isinstance(note, Rows)]
        return TABLES.get(rows[0].packages[0]) if rows else _of(arguments[0])
    if get_origin(role) in (Union, UnionType):
        some = [argument for argument in arguments if argument not in (NoneType, Ref)]
        return _of(some[0])
    if get_origin(role) is Literal:
        return arguments[0]
    if get_origin(role) is tuple:
        return [_of(arguments[0])] * 2
    return TYPES.get(role)
