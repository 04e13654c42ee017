"""The tables of contents are complete: a row for every file, a file for every row, and names that cannot collide."""

import dataclasses
import pkgutil
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from torch import nn

import anyformer
from anyformer.cli.list import TABLES, rows_of
from anyformer.core.spec import LayerSpec, ModelSpec, PartSpec
from anyformer.core.tables import row

ROOT = Path(anyformer.__file__).parent

# Files of a table's package that hold no part, and what they hold instead.
HELPERS = {
    "architectures/tokens.py": "how token ids become vectors, in whichever architecture",
    "benchmarks/children.py": "functions in interpreters of their own",
    "benchmarks/compare.py": "both sides in turn, and what came of it",
    "benchmarks/limits.py": "what the hardware allows",
    "attention/heads.py": "the projections that mixers with heads share",
    "feedforward/activations.py": "the pointwise functions that feed-forwards name",
    "heads/pooling.py": "how the tokens of a text become one vector",
    "models/checkpoint.py": "trained models on the disk, whoever wrote them",
    "models/export.py": "published folders out",
    "models/sentences.py": "folders of sentence-transformers",
    "models/surgery.py": "what becomes of weights when parts are swapped",
    "models/texts.py": "the text side of a published folder",
    "models/answers.py": "the heads of published encoders",
    "models/given.py": "vectors from files, for new embeddings",
    "models/grouped.py": "grouped attention in published configs",
    "models/hub.py": "folders by their names on a hub",
    "models/head.py": "the heads of published language models",
    "models/load.py": "models from disk",
    "models/onnx_export.py": "folders of ONNX graphs out",
    "models/onnx_graphs.py": "functions of tensors as ONNX graphs",
    "models/onnx_plans.py": "which functions of tensors a model is",
    "models/published.py": "published checkpoints in and out",
    "models/rope.py": "rotary positions in published configs",
    "memory/segments.py": "the grid that segment memories walk",
    "patterns/grammar.py": "patterns as text",
    "stores/room.py": "which store fits which wish",
    "training/objectives/inputs.py": "how texts become one input with its marks",
    "training/objectives/rows.py": "what objectives on rows share",
    "training/objectives/streams.py": "what objectives on running text share",
    "training/objectives/writing.py": "what objectives share whose answers are texts",
    "training/optimizers/joined.py": "several optimisers that a training loop sees as one",
}
# Packages that also hold the machinery behind their rows: every row has a file, but not the other way round.
MIXED = {"data": "reading, cutting and batching"}


def own_table(name: str) -> dict[str, str]:
    """Our own rows, without those of other people's packages."""
    return import_module(f"anyformer.{name}").TABLE


def classes(name: str) -> dict[str, type]:
    return {kind: row(f"anyformer.{name}", kind) for kind in own_table(name)}


def test_every_table_is_listed() -> None:
    found = pkgutil.walk_packages(anyformer.__path__, "anyformer.")
    packages = [module.name for module in found if module.ispkg]
    tables = [package.removeprefix("anyformer.") for package in packages if "TABLE" in vars(import_module(package))]
    assert sorted(tables) == sorted(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_row_for_every_file_and_a_file_for_every_row(name: str) -> None:
    folder = name.replace(".", "/")
    with_rows = {target.partition(":")[0] for target in own_table(name).values()} - {"base"}
    present = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "base"}
    helpers = {Path(helper).stem for helper in HELPERS if str(Path(helper).parent) == folder}
    assert helpers <= present - with_rows, "a helper that is no more, or that has a row"
    assert with_rows <= present, "a row without a file"
    assert name in MIXED or present <= with_rows | helpers, "a file without a row"


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_classes_with_names_that_the_grammar_reads(name: str) -> None:
    for kind, found in classes(name).items():
        assert isinstance(found, type)
        assert found.__module__ == f"anyformer.{name}.{own_table(name)[kind].partition(':')[0]}", (
            "defined where its row says"
        )
        # a model_type is somebody else's word, and stands in no pattern
        assert re.fullmatch(r"[a-z][a-z0-9_-]*" if name == "models" else r"[a-z][a-z0-9_]*", kind)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_says_what_it_is(name: str) -> None:
    for listed in rows_of(name):
        assert len(listed.sentence) > 10, f"{listed.at} needs a first sentence"
        assert not listed.sentence.startswith("cannot be"), listed.sentence


def test_names_of_layers_are_unique_over_all_tables() -> None:
    kinds = Counter(kind for name in TABLES for kind, found in classes(name).items() if issubclass(found, LayerSpec))
    assert kinds, "there are layers"
    assert not [kind for kind, count in kinds.items() if count > 1]


@pytest.mark.parametrize("name", TABLES)
def test_fields_do_not_clash_with_what_a_module_has(name: str) -> None:
    taken = set(dir(nn.Module()))
    for kind, found in classes(name).items():
        if issubclass(found, PartSpec | ModelSpec):
            fields = {field.name for field in dataclasses.fields(found)}
            assert not fields & taken, f"{name} {kind}: a module's own names"
