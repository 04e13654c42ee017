"""What the pages show is run: the part that they write keeps the laws, the picture is what the patterns say."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from anyformer.laws.cases import cases_of
from anyformer.laws.verdict import judge, laws_of

DOCS = Path(__file__).parents[1] / "docs"
SLOW = ("compile", "export")  # run on every row elsewhere


def loaded(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def decay(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The file that the page writes."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "write-a-part.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 1
    path = tmp_path_factory.mktemp("page") / "decay.py"
    path.write_text(blocks[0], "utf-8")
    return loaded(path, "decay")


def test_the_part_of_the_page_keeps_the_laws(decay: ModuleType) -> None:
    verdicts = {
        law: judge(case, law).outcome
        for case in cases_of(decay.Decay, "decay")
        for law in laws_of(case)
        if law not in SLOW
    }
    assert len(verdicts) > 20
    assert set(verdicts.values()) == {"ok"}, verdicts


def test_the_picture_shows_what_the_patterns_say() -> None:
    module = loaded(DOCS / "pictures" / "draw_patterns.py", "draw_patterns")
    assert (DOCS / "pictures" / "patterns.svg").read_text("utf-8") == module.draw()
