"""`anyformer check`: a row by name, a class of a module, a file; what it prints and how it ends."""

import json
import re
from pathlib import Path

import pytest

from anyformer.cli.main import main
from anyformer.laws import LAWS

FILE = '''
"""A mixer of one's own: each token reads the one before it."""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.core.context import Context
from anyformer.core.layer import Layer
from anyformer.core.spec import LayerSpec, Site, Size, spec
from anyformer.core.state import Past, Room


@spec
class Own(LayerSpec):
    heads: Size

    def build(self, at: Site) -> Layer:
        return OwnLayer(at)


class OwnLayer(Layer):
    def init_state(self, room: Room) -> Past:
        return BODY

    def rewind(self, past: Past, until: Tensor) -> Past:
        return past

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return before, state
'''


def test_a_row_that_keeps_the_laws(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "alibi", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    laws = [name for name, law in LAWS.items() if law.of == "part"]
    assert [line.split()[:2] for line in lines] == [["ok", law] for law in laws]


def test_a_file_that_breaks_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own_mixer.py"
    path.write_text(FILE.replace("BODY", "()"))
    assert main(["check", str(path), "--threads", "1"]) == 1
    out, err = capsys.readouterr()
    verdicts = {line.split()[1]: line.split()[0] for line in out.splitlines()}
    assert verdicts["cut"] == verdicts["padding"] == verdicts["packed"] == "FAILED"
    assert verdicts["future"] == verdicts["json"] == verdicts["seed"] == "ok"
    assert "calls of (1, 1, 1" in next(line for line in out.splitlines() if " cut " in line)
    assert "FAILED" in err.splitlines()[-1]


def test_json_of_a_class_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_refusing.py").write_text(FILE.replace("return BODY", 'raise ValueError("not to be cut")'))
    monkeypatch.chdir(tmp_path)
    assert main(["check", "own_refusing:Own", "--json", "--threads", "1"]) == 1
    verdicts = json.loads(capsys.readouterr().out)
    assert {verdict["case"] for verdict in verdicts} == {"own_refusing:Own"}
    cut = next(verdict for verdict in verdicts if verdict["law"] == "cut")
    assert cut["outcome"] == "FAILED" and "not to be cut" in cut["text"]


@pytest.mark.parametrize(
    ("part", "code", "says"),
    [
        ("softmx", 2, "there is no part 'softmx'; .*nearest: 'softmax'"),
        ("patterns.softmax", 2, "patterns has no 'softmax'|there is no part"),
        ("json:JSONDecoder", 2, "no spec class of a part"),
        ("nosuch.module:Part", 2, "No module named 'nosuch'"),
        ("nosuch.py", 3, "nosuch.py: there is no such file"),
    ],
)
def test_what_is_no_part(part: str, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", part]) == code
    assert re.search(says, capsys.readouterr().err)


def test_a_file_without_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nothing_here.py"
    path.write_text("x = 1\n")
    assert main(["check", str(path)]) == 2
    assert "no spec class is defined here" in capsys.readouterr().err
