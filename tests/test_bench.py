"""Benchmarks: both sides in turn and proven to do the same work; and loading, whose memory is bounded."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from anyformer.benchmarks import loading
from anyformer.benchmarks.base import Benchmark, Case, Once, Sample
from anyformer.benchmarks.children import fresh
from anyformer.benchmarks.compare import compared
from anyformer.benchmarks.limits import reading_s
from anyformer.cli import bench
from anyformer.cli.main import main
from anyformer.core.errors import NumericalStop
from anyformer.runs import weights
from anyformer.runs.weights import count_nonfinite


def saying(side: str, seconds: list[float], calls: list[str], answer: list[float]) -> Once:
    """Takes the seconds of a list, one after another."""
    left = iter(seconds)

    def once() -> Sample:
        calls.append(side)
        return Sample(next(left), answer, {"bytes": 1000.0 * len(calls)})

    return once


def made(calls: list[str], theirs: list[float]) -> Case:
    return Case(
        ours=saying("ours", [99.0, 2.0, 1.0, 6.0], calls, [3.0, 4.0]),
        rivals={"other": saying("other", [99.0, 4.0, 3.0, 9.0], calls, theirs), "gone": saying("gone", [], calls, [])},
        tolerance=0.01,
        limit_s=0.5,
        facts={"weights_bytes": 7},
    )


def test_sides_take_turns_and_their_medians_are_told() -> None:
    calls: list[str] = []
    (row,) = compared("probe", "one", made(calls, [3.0, 4.04]), ["gone"], 2, 3)
    assert calls == ["ours", "other", "other", "ours", "ours", "other", "other", "ours"]
    assert row.to_dict() == {
        "bench": "probe",
        "case": "one",
        "ours": "anyformer",
        "rival": "other",
        "ours_s": 2.0,
        "rival_s": 4.0,
        "ratio": 2.0,
        "limit_s": 0.5,
        "threads": 2,
        "rounds": 3,
        "ours_min_s": 1.0,
        "ours_max_s": 6.0,
        "rival_min_s": 3.0,
        "rival_max_s": 9.0,
        "ours_bytes": 5000.0,
        "rival_bytes": 6000.0,
        "weights_bytes": 7,
    }


@pytest.mark.parametrize("theirs", [[3.0, 4.06], [3.0, float("nan")], [3.0]])
def test_no_time_counts_before_the_numbers_agree(theirs: list[float]) -> None:
    with pytest.raises(NumericalStop, match="one: anyformer and other give different numbers"):
        list(compared("probe", "one", made([], theirs), ["gone"], 1, 3))


class Probe(Benchmark):
    """Costs nothing."""

    cases = ("one", "two")
    rivals: ClassVar = {"other": "json", "gone": "no_such_module"}

    @contextmanager
    def opened(self, case: str, threads: int) -> Iterator[Case]:
        yield made([], [3.0, 4.0])


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> type[Probe]:
    """The only benchmark there is."""
    monkeypatch.setattr(bench, "table", lambda package: ["probe"])
    monkeypatch.setattr(bench, "row", lambda package, name: Probe)
    return Probe


def test_the_verb_prints_a_line_or_a_table(probe: type[Probe], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "probe", "--rounds", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["case"] for line in out.splitlines()] == ["one", "two"]
    assert "gone is not installed and left out; `make bench-env` installs it" in err
    assert main(["bench", "two", "--rounds", "3"]) == 0
    out = capsys.readouterr().out
    assert "2 (1-6)" in out and "4 (3-9)" in out and "2.00" in out
    assert "two" in out and "one" not in out


def test_the_verb_says_what_it_cannot_do(
    probe: type[Probe], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["bench", "prob"]) == 2
    assert "there is no benchmark 'prob'; there are: all, probe, and their cases: one, two" in capsys.readouterr().err
    assert main(["bench", "--device", "meta"]) == 2
    assert "runs on the cpu" in capsys.readouterr().err
    monkeypatch.setattr(Probe, "rivals", {"gone": "no_such_module"})
    assert main(["bench"]) == 2
    assert "no rival is installed" in capsys.readouterr().err


def test_a_limit_grows_with_the_bytes() -> None:
    threads = torch.get_num_threads()
    assert 0 < reading_s(2**20, 1) < reading_s(2**30, 1)
    assert torch.get_num_threads() == threads


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"json:loads failed: .*JSONDecodeError"):
        fresh("json:loads", "no")
    assert fresh("json:loads", "[1, 2]") == [1, 2]


@pytest.mark.slow
def test_loading_is_measured_beside_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    tiny = {**loading.CONFIGS["load-124m"], "n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 500}
    monkeypatch.setattr(loading, "CONFIGS", {"load-124m": tiny})
    with loading.Loading().opened("load-124m", 1) as opened:
        (row,) = compared("loading", "load-124m", opened, [], 1, 1)
    found = row.to_dict()
    assert found["ratio"] > 0
    assert all(found[f"{side}_bytes"] > found[f"{side}_import_bytes"] > 5e7 for side in ("ours", "rival"))


# What loading costs: memory is counted in a child, from where a first small model has been loaded.

COUNTED = """
import json, sys, torch
from anyformer.benchmarks.children import memory
from anyformer.models.load import load

small, large, dtype = sys.argv[1:]
dtype = None if dtype == "None" else getattr(torch, dtype)
def read(folder):
    model = load(folder, dtype=dtype)
    return sum(tensor.nbytes for tensor in model.parameters() if tensor.sum().isfinite())
read(small)
before, _ = memory()
size = read(large)
print(json.dumps([size, memory()[1] - before]))
"""
GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 1000, "n_positions": 64, "n_head": 8}
BLOOM = {"architectures": ["BloomForCausalLM"], "model_type": "bloom", "vocab_size": 1000, "n_head": 8}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1000,
    "num_attention_heads": 8,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


def sized(config: dict[str, Any], width: int, layers: int) -> dict[str, Any]:
    """The config with a width, in the words of its type."""
    if config["model_type"] == "llama":
        return {**config, "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    return {**config, ("hidden_size" if config["model_type"] == "bloom" else "n_embd"): width, "n_layer": layers}


@pytest.mark.skipif(sys.platform != "linux", reason="the most that a process ever held is read from /proc")
@pytest.mark.parametrize(
    ("config", "stored", "dtype"),
    [(GPT2, "float32", None), (BLOOM, "float32", None), (LLAMA, "float32", None), (LLAMA, "float32", "bfloat16")],
    ids=["a matrix that is turned", "rows that are sorted", "pages alone", "other numbers"],
)
def test_loading_needs_little_more_than_the_weights(
    tmp_path: Path, config: dict[str, Any], stored: str, dtype: str | None
) -> None:
    sizes = {"small": sized(config, 64, 1), "large": sized(config, 512, 5 if config["model_type"] != "llama" else 4)}
    for name, tree in sizes.items():
        loading.write(str(tmp_path / name), json.dumps(tree), stored)
    words = [sys.executable, "-c", COUNTED, str(tmp_path / "small"), str(tmp_path / "large"), str(dtype)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    size, peak = json.loads(done.stdout)
    assert size > 30e6
    assert peak <= 1.15 * size, peak / size


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: torch.ones(3, 5), 0),
        (lambda: torch.full((7, 4), float("nan")), 28),
        (lambda: torch.tensor([[float("inf"), 1.0, -float("inf")]] * 9), 18),
        (lambda: torch.tensor([3e38, 3e38]), 0),  # whose sum is not finite
        (lambda: torch.tensor([6e4] * 5 + [float("nan")], dtype=torch.float16), 1),
        (lambda: torch.full((40, 3), 3e38, dtype=torch.bfloat16).mT, 0),
        (lambda: torch.tensor([complex(1, float("inf")), 2j]), 1),
        (lambda: torch.tensor(float("nan")), 1),
        (lambda: torch.empty(0, 3), 0),
        (lambda: torch.tensor([1, 2]), 0),
    ],
)
@pytest.mark.parametrize("piece", [2, 2**20])
def test_numbers_that_are_not_finite_are_counted(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], torch.Tensor], count: int, piece: int
) -> None:
    monkeypatch.setattr(weights, "PIECE", piece)
    assert count_nonfinite({"w": make()}) == ({"w": count} if count else {})
