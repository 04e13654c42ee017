"""`anyformer check`: the laws, run on anyone's part: a row of a table, a class of a module, or a file."""

import sys
from dataclasses import asdict
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isabstract
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from typer import Argument, Context

from anyformer.cli.frame import Frame
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.tables import home, nearest, row, table

EXAMPLES = ("anyformer check softmax", "anyformer check mine.py")


def check(
    ctx: Context,
    part: Annotated[str, Argument(help="A row's name, module:Class, or a .py file with a spec.", metavar="PART")],
) -> None:
    """Run every law on a part: one line each, ok, exempt with the reason, or FAILED with the first difference."""
    frame = Frame.of(ctx)
    frame.torch_device("cpu")  # laws compare in float64 on the CPU; the law `device` looks for an accelerator itself
    from anyformer.laws.cases import cases_of
    from anyformer.laws.verdict import Verdict, judge, laws_of, statement

    cases = [case for name, cls in found(part) for case in cases_of(cls, name)]
    for case in cases:
        _ = case.model  # what cannot be built at all says why before any law is tried
    verdicts: list[Verdict] = []
    for case in cases:
        if len(cases) > 1 and not frame.json:
            frame.put(f"{case.name}: {case.part!r}")
        for law in laws_of(case):
            verdicts.append(judge(case, law))
            if not frame.json:
                frame.put(f"{verdicts[-1].outcome:6}  {law:10}  {verdicts[-1].text or statement(law)}")
    if frame.json:
        frame.put_json([{k: v for k, v in asdict(verdict).items() if k != "error"} for verdict in verdicts])
    count = {outcome: sum(verdict.outcome == outcome for verdict in verdicts) for outcome in ("ok", "exempt", "FAILED")}
    frame.say(", ".join(f"{number} {outcome}" for outcome, number in count.items()))
    if count["FAILED"]:
        raise typer.Exit(1)


def found(part: str) -> list[tuple[str, type[Any]]]:
    """The spec classes that were meant, by the names they are shown under."""
    if part.endswith(".py"):
        return _of_file(Path(part))
    if ":" in part:
        return [_of_module(part)]
    return [_of_table(part)]


def _of_table(part: str) -> tuple[str, type[Any]]:
    from anyformer.laws.cases import TABLES

    rows = {kind: name for name in TABLES for kind in table(f"anyformer.{name}")}
    group, _, kind = part.rpartition(".")
    if kind not in rows or (group and group not in TABLES):
        raise ConfigError(
            f"there is no part {part!r}; write module:Class, a .py file, or a row's name: "
            f"{', '.join(sorted(rows))}{nearest(part, rows)}"
        )
    name = group or rows[kind]
    return f"{name}.{kind}", row(f"anyformer.{name}", kind)


def _of_module(part: str) -> tuple[str, type[Any]]:
    module, _, name = part.partition(":")
    sys.path.insert(0, "")  # a module of the folder one is in, as `python -m` finds it
    try:
        cls = vars(import_module(module)).get(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{part}: {error}; a file can be given by its path") from None
    finally:
        sys.path.remove("")
    if not isinstance(cls, type) or not _is_part(cls):
        raise ConfigError(f"{part}: {name!r} is no spec class of a part, such as a LayerSpec")
    return part, cls


def _of_file(path: Path) -> list[tuple[str, type[Any]]]:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    module = _imported(path.resolve())
    classes = [cls for cls in vars(module).values() if _is_part(cls) and cls.__module__ == module.__name__]
    if not classes:
        raise ConfigError(f"{path}: no spec class is defined here, such as a LayerSpec, a Pattern or a NormSpec")
    return [(cls.__name__ if home(cls) is None else ".".join(_short(cls)), cls) for cls in classes]


def _short(cls: type[Any]) -> tuple[str, str]:
    place = home(cls)
    assert place is not None
    return place[0].removeprefix("anyformer."), place[1]


def _imported(path: Path) -> ModuleType:
    """The file as a module; one that belongs to an imported package keeps its name there, and so its row."""
    root = Path(__file__).parents[1]
    if path.is_relative_to(root):
        return import_module(".".join(("anyformer", *path.relative_to(root).with_suffix("").parts)))
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # specs look their types up there
    spec.loader.exec_module(module)
    return module


def _is_part(cls: object) -> bool:
    from anyformer.laws.cases import BASES

    return isinstance(cls, type) and issubclass(cls, BASES) and not isabstract(cls)
