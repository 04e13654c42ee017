"""Imports run downhill, in no circle, and torch comes only when it is needed.

The imports are read, not run: those at the top of a file, those inside functions, and those for type checking alone.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import anyformer

ROOT = Path(anyformer.__file__).parent

# Each package imports only from those before it. The package's own front (`anyformer`, `python -m`) comes last.
ORDER = (
    *("core", "initial", "stores", "patterns", "kernels", "positions", "norms", "feedforward", "residuals", "flows"),
    *("memory", "attention", "blocks", "embeddings", "heads", "architectures", "laws", "data", "runs", "checkpoints"),
    *("models", "recipes", "generation", "training", "benchmarks", "pictures", "comparing", "theory", "serving"),
    *("extensions", "adapters", "quantize", "parallel", "cli"),
)

# Imports that run uphill, inside a function, and why nothing better was found: (importer, imported): reason.
UPHILL: dict[tuple[str, str], str] = {}

# Packages whose whole work is arithmetic on tensors. Elsewhere a file that defines no module does without torch.
TENSOR_PACKAGES = {"checkpoints", "initial", "kernels", "stores", "laws", "training", "generation", "models"}
TENSOR_FILES: dict[str, str] = {
    "anyformer.core.build": "fills the tensors of a new model",
    "anyformer.core.call": "checks tensors",
    "anyformer.core.clock": "times are tensors",
    "anyformer.core.context": "Where and Source are tensors",
    "anyformer.core.fills": "fills draw tensors",
    "anyformer.core.state": "a past is tensors",
    "anyformer.core.tape": "records tensors",
    "anyformer.core.tree": "maps over tensors",
    "anyformer.feedforward.activations": "functions of tensors",
    "anyformer.memory.segments": "lays tensors on a grid",
}

# What the command line reads before it knows that there is anything to compute.
TORCH_FREE = ("patterns", "data", "runs", "recipes", "cli")
TORCH_FREE_FILES = (
    "anyformer",
    "anyformer.core.errors",
    "anyformer.core.explain",
    "anyformer.core.spec",
    "anyformer.core.tables",
)


@dataclass(frozen=True)
class Import:
    """One import statement: who, what, and when: "top", "lazy" (inside a function) or "typing"."""

    importer: str
    imported: str
    when: str


@cache
def files() -> dict[str, Path]:
    """Every module of the package and its file."""
    paths = sorted(path for path in ROOT.rglob("*.py"))
    return {
        ".".join(("anyformer", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in paths
    }


@cache
def imports() -> tuple[Import, ...]:
    """Every import in every file."""
    return tuple(
        found for module, path in files().items() for found in walk(module, path, ast.parse(path.read_text()), "top")
    )


def walk(module: str, path: Path, node: ast.AST, when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names):
                yield from (Import(module, name.name, when) for name in names)
            case ast.ImportFrom(source, names, level):
                base = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                parts = [*base[: len(base) - level + 1], *([source] if source else [])] if level else [str(source)]
                origin = ".".join(parts)
                for name in names:
                    inner = f"{origin}.{name.name}"
                    yield Import(module, inner if inner in files() else origin, when)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from walk(module, path, child, "typing" if when == "typing" else "lazy")
            case ast.If(test) if "TYPE_CHECKING" in ast.unparse(test):
                yield from walk(module, path, child, "typing")
            case _:
                yield from walk(module, path, child, when)


def package_of(module: str) -> str:
    """The "core" of anyformer.core.spec; nothing for the front."""
    first = module.split(".")[1:2]
    return first[0] if first and first != ["__main__"] else ""


def rank(module: str) -> int:
    """The place of a module's package in the order."""
    return ORDER.index(package_of(module)) if package_of(module) in ORDER else len(ORDER)


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "anyformer"


def is_torch(module: str) -> bool:
    return module.partition(".")[0] == "torch"


@cache
def modules_that_define_modules() -> frozenset[str]:
    """Files with a class that descends from nn.Module, in this package or in torch."""
    classes = [
        (module, node.name, {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases})
        for module, path in files().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    known = {"Module"}
    while grown := {name for _, name, bases in classes if bases & known} - known:
        known |= grown
    return frozenset(module for module, name, bases in classes if bases & known)


@cache
def loaded_by(module: str) -> frozenset[str]:
    """Whatever `import module` runs, torch not followed."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        if is_ours(at):
            todo.append(at.rpartition(".")[0] or at)
            todo.extend(found.imported for found in imports() if found.importer == at and found.when == "top")
    return frozenset(seen)


def test_every_package_has_a_place_in_the_order() -> None:
    packages = set(map(package_of, files())) - {""}
    assert packages <= set(ORDER), f"put {packages - set(ORDER)} into ORDER"


def test_imports_run_downhill() -> None:
    uphill = {
        (found.importer, found.imported): found.when
        for found in imports()
        if is_ours(found.imported) and found.imported != "anyformer" and rank(found.imported) > rank(found.importer)
    }
    assert not {pair: when for pair, when in uphill.items() if pair not in UPHILL}
    assert not {pair for pair in UPHILL if uphill.get(pair) == "top"}, (
        "an import that runs uphill must be inside a function"
    )
    assert UPHILL.keys() <= uphill.keys(), "an exception that no file needs any more"


def test_the_front_is_imported_for_its_version_alone() -> None:
    fronts = [found.importer for found in imports() if found.imported == "anyformer"]
    assert all(
        importer.startswith("anyformer.") and "from anyformer import __version__" in files()[importer].read_text()
        for importer in fronts
    )


def test_no_circles() -> None:
    graph = {
        module: {f.imported for f in imports() if f.importer == module and f.when == "top" and f.imported in files()}
        for module in files()
    }
    done: set[str] = set()
    while ready := {module for module, needs in graph.items() if module not in done and needs - {module} <= done}:
        done |= ready
    assert not {module: sorted(needs - done) for module, needs in graph.items() if module not in done}


def test_files_without_a_module_import_torch_late() -> None:
    early = {found.importer for found in imports() if found.when == "top" and is_torch(found.imported)}
    excused = {module for module in early if module in TENSOR_FILES or package_of(module) in TENSOR_PACKAGES}
    assert not sorted(early - excused - modules_that_define_modules()), (
        "import torch under TYPE_CHECKING or in the function"
    )
    assert TENSOR_FILES.keys() <= early - modules_that_define_modules(), "an exception that no file needs any more"


def test_what_reads_declarations_and_runs_loads_no_torch() -> None:
    light = [module for module in files() if module in TORCH_FREE_FILES or package_of(module) in TORCH_FREE]
    assert not [module for module in light if any(map(is_torch, loaded_by(module)))]


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("import anyformer", 0),
        ("from anyformer.cli.main import main; main(['--help'])", 0),
        ("from anyformer.cli.main import main; main(['train', '--help'])", 0),
        ("from anyformer.cli.main import main; main(['list', '--json'])", 0),
        ("from anyformer.cli.main import main; sys.exit(main(['train', 'nosuchrecipe']))", 2),
    ],
)
def test_torch_is_not_imported_by(code: str, exit_code: int) -> None:
    tail = "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))"
    done = subprocess.run([sys.executable, "-c", f"import atexit, sys; {tail}; {code}"], capture_output=True, text=True)
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.splitlines()[-1] == "False"


def test_lazy_names_are_where_they_are_said_to_be() -> None:
    for name, module in anyformer.NAMES.items():
        assert f"from {module} import {name} as {name}" in files()["anyformer"].read_text(), "for type checkers too"
        assert name in dir(anyformer)
        assert getattr(anyformer, name) is not None


def test_an_unknown_name_is_explained() -> None:
    with pytest.raises(AttributeError, match=r"anyformer has no 'laod'; it has: .*load"):
        _ = anyformer.laod  # pyright: ignore[reportAttributeAccessIssue]
