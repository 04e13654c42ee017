"""Nested state as named tensors and plain JSON, and exactly back: what a pickle would do, without running anything.

JSON has no tuples, no infinities and only text for keys; those, and tensors, become an object with one key that
starts with `$`: {"$tensor": name}, {"$tuple": […]}, {"$float": "inf"}, {"$dict": [[key, value], …]}.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def pack_state(state: object) -> "tuple[dict[str, Tensor], object]":
    """Splits nested dicts, lists and tuples into their tensors, by name, and the rest, ready for JSON.

    A tensor that stands in two places is kept once and comes back as one tensor; two views of one memory come back
    as two tensors. Tensors come back contiguous, on the CPU, without gradients.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}

    def pack(value: object, path: str) -> object:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if isinstance(value, float) and kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, list) and kind is list:
            return [pack(item, f"{path}.{i}") for i, item in enumerate(value)]
        if isinstance(value, tuple) and kind is tuple:
            return {"$tuple": [pack(item, f"{path}.{i}") for i, item in enumerate(value)]}
        if isinstance(value, dict) and kind is dict:
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: pack(item, f"{path}.{key}") for key, item in value.items()}
            return {"$dict": [[pack(key, path), pack(item, f"{path}.{key}")] for key, item in value.items()]}
        return {"$tensor": name_of(value, path)}

    def name_of(value: object, path: str) -> str:
        import torch

        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{path or 'the state'} is a {type(value).__name__}; a state is made of tensors, None, bool, int, "
                "float, str, list, tuple and dict: turn it into one of these first"
            )
        if id(value) not in names:
            # The number makes the name unique, whatever the keys are; the path is there to be read by people.
            readable = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in path)
            names[id(value)] = f"{len(tensors):05}{readable}"[:500]
            tensors[names[id(value)]] = value.detach()
        return names[id(value)]

    return tensors, pack(state, "")


def unpack_state(tensors: "dict[str, Tensor]", facts: object) -> object:
    """The state that `pack_state` took apart: types of keys and numbers, dtypes and 0-dimensional tensors included."""
    match facts:
        case {"$tensor": str(name)}:
            if name not in tensors:
                raise ValueError(f"the state speaks of a tensor {name!r} that is not there")
            return tensors[name]
        case {"$float": str(number)}:
            return float(number)
        case {"$tuple": list(items)}:
            return tuple(unpack_state(tensors, item) for item in items)
        case {"$dict": list(items)}:
            return {unpack_state(tensors, key): unpack_state(tensors, item) for key, item in items}
        case dict():
            return {key: unpack_state(tensors, item) for key, item in facts.items()}
        case list():
            return [unpack_state(tensors, item) for item in facts]
        case _:
            return facts
