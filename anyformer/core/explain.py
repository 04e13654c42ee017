"""What was wrong with a spec, in one line: the path, what came, what is allowed."""

from itertools import groupby

from pydantic import ValidationError
from pydantic_core import ErrorDetails

TYPES = {
    str: "text",
    bool: "true/false",
    int: "a whole number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
}


def came(value: object) -> str:
    """A value as an error message shows it: shortened, with its type."""
    if value is None:
        return "null"
    if isinstance(value, int) and abs(value) > 10**40:
        return "a whole number of more than 40 digits"  # Python itself refuses to write very long ones
    text = repr(list(value) if isinstance(value, tuple) else value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({TYPES.get(type(value), type(value).__name__)})"


def explain(error: ValidationError) -> str:
    """One line for all the errors; equal ones along a stack are merged (`blocks.0-7`)."""
    seen: dict[tuple[tuple[str, ...], str], list[int | None]] = {}
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and any(_is_below(other["loc"], detail["loc"]) for other in details):
            continue  # the list is short only because its items were refused
        loc, index = _without_first_index(tuple(detail["loc"]))
        seen.setdefault((loc, _message(detail)), []).append(index)
    lines = [
        (".".join(loc).replace("#", ranges([i for i in at if i is not None])), message)
        for (loc, message), at in seen.items()
    ]
    return "; ".join(f"{path}: {message}" if path else message for path, message in lines)


def _is_below(loc: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    return len(loc) > len(other) and loc[: len(other)] == other


def _without_first_index(loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], int | None]:
    """A location with its first list index taken out and marked by "#"."""
    for at, key in enumerate(loc):
        if isinstance(key, int):
            return (*map(str, loc[:at]), "#", *map(str, loc[at + 1 :])), key
    return tuple(map(str, loc)), None


def ranges(indices: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    runs = [
        [i for _, i in run] for _, run in groupby(enumerate(sorted(set(indices))), key=lambda pair: pair[1] - pair[0])
    ]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _message(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    match detail["type"]:
        case "missing":
            return "is missing"
        case "tuple_type":
            return f"should be a list; came {came(detail['input'])}"
        case "dataclass_type" | "dataclass_exact_type":
            return f"should be a mapping; came {came(detail['input'])}"
        case "part" | "row" | "key" | "value_error":
            return message  # ours: it already says what came
        case _:
            return f"{message}; came {came(detail['input'])}"
