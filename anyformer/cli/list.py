"""`anyformer list`: the tables of parts, read from their files without importing any, so that it is quick."""

import ast
import re
from collections import Counter
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from anyformer.cli.frame import Frame
from anyformer.core.errors import ConfigError
from anyformer.core.tables import clashes, nearest, table
from anyformer.recipes.shipped import presets, recipes

EXAMPLES = ("anyformer list attention", "anyformer list --schema > recipe.schema.json")

TABLES = (
    "stores",
    "patterns",
    "positions",
    "positions.rates",
    "norms",
    "feedforward",
    "feedforward.routers",
    "residuals",
    "flows",
    "memory",
    "attention",
    "blocks",
    "embeddings",
    "heads",
    "initial",
    "adapters",
    "architectures",
    "models",
    "data",
    "data.tokenizers",
    "training.objectives",
    "training.optimizers",
    "training.schedules",
    "benchmarks",
)
SHIPPED = {  # files, not parts: their first line says what they are
    "presets": "presets: models that ship, for `model: {preset: NAME}` in a recipe",
    "recipes": "recipes: runs that ship, for `anyformer train NAME`",
}
NAMES = (*TABLES, *SHIPPED)
PAPER = re.compile(r"\s*\(([^()]*\b(?:19|20)\d\d[a-z]?\b[^()]*)\)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One part as it is listed; `at` is the module and the class, or the file."""

    table: str
    name: str
    at: str
    sentence: str
    paper: str


def list_parts(
    ctx: Context,
    name: Annotated[str | None, Argument(help="One table, such as attention.", metavar="TABLE")] = None,
    schema: Annotated[bool, Option("--schema", help="The JSON Schema of a recipe, for editors.")] = False,
) -> None:
    """Show every registered part, one line each, with its paper; other people's parts too, once they are installed."""
    frame = Frame.of(ctx)
    if schema:
        from anyformer.recipes.schema import recipe_schema

        frame.put_json(recipe_schema())
        return
    rows = [row for table_name in chosen(name) for row in (shipped if table_name in SHIPPED else rows_of)(table_name)]
    if frame.json:
        frame.put_json([asdict(row) for row in rows])
        return
    for count, table_name in enumerate(chosen(name)):
        frame.put(("\n" if count else "") + title(table_name))
        frame.put_table([(f"  {row.name}", row.paper, row.sentence) for row in rows if row.table == table_name])


def chosen(name: str | None) -> tuple[str, ...]:
    """All tables, or the one that was asked for."""
    if name is None:
        return NAMES
    if name not in NAMES:
        raise ConfigError(f"there is no table {name!r}; there are: {', '.join(NAMES)}{nearest(name, NAMES)}")
    return (name,)


def rows_of(name: str) -> list[Row]:
    """The rows of a table in its own order; a name claimed twice and a file that cannot be read say so."""
    places = table(f"anyformer.{name}")
    rows_in = Counter(at.partition(":")[0] for at in places.values())
    rows = []
    twice = clashes(f"anyformer.{name}")
    for kind, at in places.items():
        module, _, class_name = at.partition(":")
        sentence, paper = described(module, class_name if rows_in[module] > 1 else None)
        if kind in twice:
            sentence = f"cannot be used: claimed by {' and '.join(twice[kind])}; uninstall one"
        rows.append(Row(table=name, name=kind, at=at, sentence=sentence, paper=paper))
    return rows


def shipped(name: str) -> list[Row]:
    """The recipes or presets inside the package."""
    rows = []
    for kind, path in {"presets": presets, "recipes": recipes}[name]().items():
        sentence, paper = split_docstring(path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# "))
        rows.append(Row(table=name, name=kind, at=f"{path.parent.name}/{path.name}", sentence=sentence, paper=paper))
    return rows


def described(module: str, class_name: str | None) -> tuple[str, str]:
    """First sentence and paper of a module's docstring, or of one class where several rows share the file."""
    try:
        spec = find_spec(module)
        assert spec is not None and spec.origin is not None
        tree: ast.Module | ast.ClassDef = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except Exception as error:  # somebody else's package may raise anything; the other rows still count
        return f"cannot be read: {type(error).__name__}: {error}", ""
    text = ast.get_docstring(tree) or ""
    if class_name is not None:
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name]
        text = next((doc for doc in map(ast.get_docstring, classes) if doc), text)
    return split_docstring(text)


def split_docstring(text: str) -> tuple[str, str]:
    """'ALiBi (Press et al. 2021): subtract a slope.' is 'ALiBi: subtract a slope' and 'Press et al. 2021'."""
    first = " ".join(text.partition("\n\n")[0].split())
    found = PAPER.search(first)
    paper = found.group(1) if found else ""
    sentence = re.split(r"(?<=[^.\s][a-z)\]`’'\"])\. ", PAPER.sub("", first, count=1), maxsplit=1)[0]
    return sentence.removesuffix("."), paper


def title(name: str) -> str:
    """What a table is for: its name, and the first sentence of its package."""
    if name in SHIPPED:
        return SHIPPED[name]
    sentence, _ = split_docstring(import_module(f"anyformer.{name}").__doc__ or "")
    return sentence if sentence.lower().startswith(name) else f"{name}: {sentence}".removesuffix(": ")
