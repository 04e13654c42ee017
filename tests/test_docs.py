"""What the pages show is run: the part that they write keeps the laws, the picture is what the patterns say."""

import csv
import importlib.util
import io
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from anyformer.cli.main import main
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


def test_the_commands_of_the_page_on_tables_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first four of them, in order, on a table as the page has it; with few steps, so that it takes seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page = (DOCS / "classify.md").read_text("utf-8")
    table = re.findall(r"```\n(text,label\n.*?)```", page, re.DOTALL)[0]
    header, *rows = csv.reader(table.splitlines())
    with (tmp_path / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *([f"{text} {copy}", label] for copy in range(9) for text, label in rows)])
    (tmp_path / "new.txt").write_text("a warm and funny film\nlong and lifeless\n", "utf-8")
    commands = re.findall(r"^\$ anyformer (.*?)(?: +#.*)?$", page, re.MULTILINE)
    train, evaluate, predict = (shlex.split(command) for command in commands[:3])
    assert main([*train, "--threads", "1", "--set", "budget.steps=2", "--set", "data.held_out=0.3"]) == 0
    assert main(evaluate) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(predict) == 0
    assert [json.loads(line).keys() for line in capsys.readouterr().out.splitlines()] == [{"label", "probability"}] * 2
    wrong = shlex.split(commands[-1])
    assert main([*wrong, "--out", "runs/other"]) == 3
    assert page.splitlines()[-2] == capsys.readouterr().err.strip()


@pytest.mark.needs_shared
@pytest.mark.usefixtures("beside_stories")
def test_the_commands_of_the_page_on_checkpoints_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them but the one on pickles, in order; what they print is what the page shows."""
    (tmp_path / "my.txt").write_text("Once upon a time there was a little dog. " * 40, "utf-8")
    assert main(["convert", "stories260K", "runs/mine", "--to", "anyformer"]) == 0
    capsys.readouterr()
    page = (DOCS / "checkpoints.md").read_text("utf-8").partition("## Conversations")[0]
    commands = re.findall(r"^\$ anyformer (.*)\n((?:(?!\$|```).*\n)*)", page, re.MULTILINE)
    assert len(commands) == 7
    for command, shown in commands[:-1]:
        assert main(shlex.split(command)) == 0, command
        printed = capsys.readouterr().out
        assert not shown or printed == shown, command


@pytest.mark.needs_shared
@pytest.mark.usefixtures("beside_stories")
def test_the_recipe_of_the_page_on_checkpoints_trains(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("Once upon a time there was a little dog. " * 400, "utf-8")
    recipes = re.findall(r"```yaml\n(.*?)```", (DOCS / "checkpoints.md").read_text("utf-8"), re.DOTALL)
    assert len(recipes) == 4
    (tmp_path / "tune.yaml").write_text(recipes[0], "utf-8")
    small = ["--set", "budget.steps=2", "--set", "training.length=32", "--threads", "1"]
    assert main(["train", "tune.yaml", "--out", "runs/tuned", *small]) == 0
    assert main(["evaluate", "runs/tuned", "--batches", "1"]) == 0


@pytest.mark.needs_shared
@pytest.mark.usefixtures("beside_stories")
def test_the_conversations_of_the_page_on_checkpoints_are_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows, its recipe and its commands, in order; the answers are those that the page shows."""
    section = (DOCS / "checkpoints.md").read_text("utf-8").partition("## Conversations")[2]
    section = section.partition("\n## ")[0]
    for kind, name in (("json", "talks.jsonl"), ("yaml", "chat.yaml")):
        (text,) = re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)
        (tmp_path / name).write_text(text, "utf-8")
    commands = re.findall(r"^\$ anyformer (.*)\n((?:(?!\$|```).*\n)*)", section, re.MULTILINE)
    assert len(commands) == 4
    for command, shown in commands:
        words, _, given = command.partition(" < ")
        if given:
            monkeypatch.setattr(sys, "stdin", io.StringIO("Who is Lily?\nWhere is she?\n"))
        assert main([*shlex.split(words), "--device", "cpu"]) == 0, command
        printed = capsys.readouterr().out
        assert not shown or printed == shown, command
    assert (tmp_path / "chatty" / "chat_template.jinja").is_file()


@pytest.mark.needs_shared
@pytest.mark.usefixtures("beside_stories")
def test_the_preferences_and_the_student_of_the_page_on_checkpoints_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The section's rows, recipes and commands, in order."""
    (tmp_path / "my.txt").write_text("Once upon a time there was a little dog. " * 400, "utf-8")
    section = (DOCS / "checkpoints.md").read_text("utf-8").partition("## Preferences and teachers")[2]
    section = section.partition("\n## ")[0]
    for kind, names in (("json", ("pairs.jsonl",)), ("yaml", ("dpo.yaml", "student.yaml"))):
        for name, text in zip(names, re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL), strict=True):
            (tmp_path / name).write_text(text, "utf-8")
    commands = re.findall(r"^\$ anyformer (.*)\n((?:(?!\$|```).*\n)*)", section, re.MULTILINE)
    assert len(commands) == 4
    for command, shown in commands:
        assert main([*shlex.split(command), "--device", "cpu"]) == 0, command
        printed = capsys.readouterr().out
        assert not shown or printed == shown, command
        assert shown or "loss" in printed
