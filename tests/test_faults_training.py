"""What can go wrong with training and evaluating: each fault by its number, one clear line, nothing lost."""

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_resume import kill_and_resume
from test_training import lines, recipe_of, same_ending, stop_after

from anyformer.cli.main import main
from anyformer.core.errors import ConfigError, InputError, NumericalStop, ResourceError
from anyformer.runs.files import Chunk, Disk
from anyformer.runs.folder import RunFolder
from anyformer.training.loop import Report, Trainer
from anyformer.training.train import train

WORDS = "the cat sat on a mat and saw the dog run far away from home. " * 40


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(WORDS[at : at + 90] for at in range(0, len(WORDS), 90)))
    return path


@pytest.fixture
def recipe(text: Path, tmp_path: Path) -> Path:
    return written(tmp_path / "recipe.yaml", recipe_of(text))


def written(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(json.dumps(recipe))
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """The exit code and the one line of a command that prints nothing else."""
    code = main([*map(str, words), "--quiet"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    return code, err


# 20, 21, 22, 27: recipes that cannot be


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("optimizer.rate=1", "optimizer.rate: no such key; allowed: lr,"),
        ("trainig.batch=1", "nearest: 'training'"),
        ("training.batch=many", "training.batch: should be"),
        ("training.batch=0", "training.batch"),
        ("model.width=10000000000", "model.width"),
        ("model.body.blocks.*.mixer.heads=3", "heads (3)"),
        ("model.body.blocks.*.mixer.kv_heads=3", "kv_heads (3)"),
        ("model.body.blocks.*.mixer.heads=16", "rotary"),
        ("model.body.blocks.*.mixer={kind: linear, heads: 2, position: alibi}", "position"),
        ("model.position=rotary", "position"),
        ("model.body.blocks.*.mixer.pattern=causal & nosuch", "nosuch"),
        ("model.body.blocks.*.mixer.pattern=causal & documents", "document"),
        ("model.position={kind: learned, length: 8}", "training.length (12) is more than"),
        ("model.vocabulary=5", "model.vocabulary (5) is smaller than the tokenizer's"),
        ("budget={}", "set steps, tokens, seconds or flops"),
    ],
)
def test_20_to_27_impossible_recipes_are_one_line_and_leave_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, says: str
) -> None:
    code, line = refused(capsys, "train", recipe, "--out", tmp_path / "run", "--set", change)
    assert code == 2
    assert says in line
    assert not (tmp_path / "run").exists()


def test_what_to_train_must_be_said_once(
    recipe: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, says in (
        ([], "say what to train"),
        (["--data", text], "give both --data and --model"),
        (["--model", "tiny"], "give both --data and --model"),
        ([recipe, "--model", "tiny"], "not both"),
        ([recipe, "--resume"], "--resume needs --out RUN"),
        (["--data", text, "--model", "lama-tiny"], "'llama-tiny'"),
        (["shakespear"], "'shakespeare'"),
    ):
        code, line = refused(capsys, "train", *words)
        assert code == 2
        assert says in line
    assert not (tmp_path / "runs").exists()


# 30, 40: texts


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no text, only empty files"),
        (b" \n\n \n", "no text, only empty files"),
        (b"one line\n", "the text has 8 tokens, and one window is 13: give more text, or lower training.length to"),
        (b"x", "there is no training text"),
        (b"good text, then \xff\xfe", r"byte 16 (0xff) is no UTF-8"),
        ("as Windows writes it".encode("utf-16"), "looks like UTF-16"),
    ],
    ids=["empty", "blank", "one line", "one byte", "invalid", "UTF-16"],
)
def test_30_40_texts_that_cannot_be_trained_on(
    recipe: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, says: str
) -> None:
    text.write_bytes(data)
    code, line = refused(capsys, "train", recipe, "--out", tmp_path / "run")
    assert code == 3
    assert says in line
    assert not (tmp_path / "run").exists()


def test_30_nul_bytes_are_text_like_any(text: Path, tmp_path: Path) -> None:
    text.write_bytes(b"a\0b\0\0 " * 200)
    run = train(recipe_of(text), tmp_path / "run")
    assert run.model.tokenizer.decode(run.model.tokenizer.encode("a\0b")) == "a\0b"  # pyright: ignore


def test_40_one_letter_over_and_over_is_trained_with_a_warning(text: Path, tmp_path: Path) -> None:
    text.write_text("a" * 1000)
    with pytest.warns(UserWarning, match="one token over and over"):
        train(recipe_of(text, steps=2), tmp_path / "run")
    recipe = written(tmp_path / "recipe.yaml", recipe_of(text, steps=2))
    done = subprocess.run([*command(recipe, tmp_path / "again"), "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0
    assert re.fullmatch(r"warning: the training text is one token over and over: .*\n", done.stderr)


def test_40_one_held_out_token_is_refused_before_the_first_step(text: Path, tmp_path: Path) -> None:
    text.write_text("abcdefghij" * 30)
    with pytest.raises(InputError, match=r"the held-out text is 1 token, .* data\.held_out"):
        train(recipe_of(text, data={"held_out": 0.001}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluate_says_what_is_wrong_with_a_text(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(recipe_of(text), tmp_path / "run").path
    other = tmp_path / "other.txt"
    for data, says in ((b"", "no text"), (b"a", "at least 2"), (b"\xff\xff", "no UTF-8"), ("ß" * 9, "character 'ß'")):
        other.write_bytes(data if isinstance(data, bytes) else data.encode())
        code, line = refused(capsys, "evaluate", run, "--data", other)
        assert code == 3
        assert says in line
    code, line = refused(capsys, "evaluate", run, "--data", tmp_path / "nowhere.txt")
    assert (code, "nowhere.txt" in line) == (3, True)


# 26, 45, 46: run folders


def test_a_run_that_exists_is_not_touched(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--out", str(run), "--quiet"]) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, line = refused(capsys, "train", recipe, "--out", run)
    assert code == 2
    assert "already holds a run: add --resume" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_26_a_run_of_a_newer_version(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--out", str(run), "--quiet"]) == 0
    capsys.readouterr()
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"format": 9}))
    for words in (["train", recipe, "--resume", "--out", run], ["evaluate", run], ["generate", run, "the"]):
        code, line = refused(capsys, *words)
        assert code == 3
        assert "is a run of format 9" in line


def test_2_45_weights_that_were_cut_short_or_flipped(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--out", str(run), "--quiet"]) == 0
    capsys.readouterr()
    path = run / "weights.safetensors"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[-3] ^= 4
    for bad in (good[:-100], good[:20], b"", bytes(flipped)):
        path.write_bytes(bad)
        for words in (["evaluate", run], ["generate", run, "the"]):
            code, line = refused(capsys, *words)
            assert code == 3
            assert "weights.safetensors" in line
    assert main(["train", "--resume", "--out", str(run), "--quiet"]) == 0  # the snapshot still has them
    capsys.readouterr()
    assert path.read_bytes() == good


def test_45_a_damaged_snapshot_falls_back_and_says_so(text: Path, tmp_path: Path) -> None:
    recipe = recipe_of(text)
    train(recipe, tmp_path / "a")
    train(recipe, tmp_path / "b", report=stop_after(8))
    newest = tmp_path / "b" / "snapshots" / "step-00000008" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-50])
    notes: list[str] = []
    train(recipe, tmp_path / "b", resume=True, note=notes.append)
    assert "using the snapshot of step 6" in notes[0]
    assert notes[1:] == ["going on from step 6"]
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


def test_46_two_processes_in_one_folder(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--out", str(run), "--quiet"]) == 0
    capsys.readouterr()
    with RunFolder.resume(run):
        code, line = refused(capsys, "train", recipe, "--resume", "--out", run)
        assert code == 4
        assert f"is in use by process {os.getpid()}" in line
        assert main(["evaluate", str(run), "--json"]) == 0  # who only reads may come in
    capsys.readouterr()


# 41, 48: what may change between a run and its resume


def test_41_a_text_that_changed_is_refused(text: Path, tmp_path: Path) -> None:
    recipe = recipe_of(text)
    train(recipe, tmp_path / "run", report=stop_after(4))
    good = text.read_text()
    text.write_text(good.replace("cat", "act", 1))
    with pytest.raises(InputError, match=r"the text or its tokenizer is not what .*run was trained on"):
        train(recipe, tmp_path / "run", resume=True)
    text.write_text(good)
    assert train(recipe, tmp_path / "run", resume=True).steps == 10


def test_48_a_recipe_that_changed_is_refused_and_what_changed_is_named(text: Path, tmp_path: Path) -> None:
    recipe = recipe_of(text)
    train(recipe, tmp_path / "run", report=stop_after(4))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    changed = recipe_of(
        text, optimizer={"lr": 0.02}, training={"batch": 8}, mixer={"dropout": 0.1}, seed=3, evaluate={"every": 5}
    )
    names = {"model.body.blocks", "optimizer.lr", "training.batch", "seed"}
    with pytest.raises(ConfigError, match="was made with other settings of") as error:
        train(changed, tmp_path / "run", resume=True)
    listed = re.search("other settings of (.*); resume with the same", str(error.value))
    assert listed
    assert set(listed[1].split(", ")) == names
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}.items() >= {
        (path, data) for path, data in before.items() if path.name != "manifest.json"
    }
    elsewhere = recipe_of(tmp_path / "nowhere.txt")  # the change is named, not the file that is not there
    with pytest.raises(ConfigError, match=r"settings of data\.path;"):
        train(elsewhere, tmp_path / "run", resume=True)


def test_48_another_number_of_threads_is_told(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    train(recipe_of(text), tmp_path / "run", report=stop_after(4))
    notes: list[str] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    train(recipe_of(text), tmp_path / "run", resume=True, note=notes.append)
    assert f"begun with threads {threads} and goes on with {threads + 1}" in notes[1]


def test_resuming_what_is_not_there_starts_over_and_says_so(text: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    recipe = recipe_of(text, snapshots={"every": 100})
    train(recipe, tmp_path / "a", resume=True, note=notes.append)
    assert notes == [f"{tmp_path / 'a'} holds no run yet: starting from the beginning"]

    class Killed(BaseException):
        pass

    def die(report: Report) -> None:
        if report.step == 7:
            raise Killed

    with pytest.raises(Killed):
        train(recipe, tmp_path / "b", report=die)
    notes.clear()
    assert [record["step"] for record in lines(tmp_path / "b")] == [1, 4, 5]  # what is about to be made again
    train(recipe, tmp_path / "b", resume=True, note=notes.append)
    assert notes == [f"{tmp_path / 'b'} has no snapshot yet: starting from the beginning"]
    same_ending(tmp_path / "a", tmp_path / "b")
    notes.clear()
    done = train(recipe, tmp_path / "b", resume=True, note=notes.append)
    assert notes == [f"{tmp_path / 'b'} is finished: its budget was used after 10 steps"]
    assert (done.steps, done.stopped) == (10, None)


def test_a_kill_between_the_last_snapshot_and_the_weights(text: Path, tmp_path: Path) -> None:
    """The run counts as finished, and is: the weights are those of the snapshot, and were measured."""

    class Killed(BaseException):
        pass

    def die(self: RunFolder, tensors: object, best: bool = False) -> None:
        if not best:
            raise Killed

    recipe = recipe_of(text, steps=7, snapshots={"every": 7})
    train(recipe, tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunFolder, "write_weights", die)
        train(recipe, tmp_path / "b")
    assert not (tmp_path / "b" / "weights.safetensors").exists()
    train(recipe, tmp_path / "b", resume=True)
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


# 39: numbers that are none


@pytest.mark.parametrize("how", ["rate", "gradient", "held-out"])
def test_39_a_loss_that_is_no_number_stops_with_the_last_good_snapshot(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    sections: dict[str, Any] = {"snapshots": {"every": 1}, "evaluate": {"every": 100}, "schedule": {"warmup": 0}}
    if how == "rate":
        sections["optimizer"] = {"lr": 1e35}
    recipe = written(tmp_path / "recipe.yaml", recipe_of(text, **sections))
    ruin = Trainer.step if how == "gradient" else Trainer.evaluate

    def at_step_5(self: Trainer) -> dict[str, float]:
        if self.spent.steps == 4:
            list(self.model.parameters())[-2].register_hook(lambda gradient: gradient * math.inf)
        return ruin(self)  # pyright: ignore

    if how == "gradient":
        monkeypatch.setattr(Trainer, "step", at_step_5)
    if how == "held-out":
        monkeypatch.setattr(torch.nn.functional, "cross_entropy", spoiled(torch.nn.functional.cross_entropy))
    code, line = refused(capsys, "train", recipe, "--out", tmp_path / "run")
    assert code == 5
    saved = re.search(r"the last snapshot is of step (\d+)", line)
    assert saved
    with RunFolder.resume(tmp_path / "run") as run:
        snapshot = run.latest_snapshot()
    assert snapshot is not None
    assert snapshot.step == int(saved[1])
    assert all(tensor.isfinite().all() for tensor in snapshot.tensors.values() if tensor.is_floating_point())
    if how == "held-out":
        assert "step 10: the loss on held-out text is nan" in line
    else:
        assert re.search(rf"step {snapshot.step + 1}: (the loss|the gradient's norm) is (nan|inf)", line)
        assert re.search(r"its batch is of the documents \d+, ", line)
    if how == "gradient":
        assert "the gradient is not finite from " in line
        assert snapshot.step == 4


def spoiled(cross_entropy: Any) -> Any:
    """No number where no gradient is asked for."""
    return lambda *given, **more: cross_entropy(*given, **more) * (1 if torch.is_grad_enabled() else math.nan)


def test_39_a_run_that_diverges_after_a_resume_knows_its_snapshot(text: Path, tmp_path: Path) -> None:
    recipe = recipe_of(text, snapshots={"every": 100})
    train(recipe, tmp_path / "run", report=stop_after(4))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(NumericalStop, match="last snapshot is of step 4"):
        patch.setattr("anyformer.training.loop.clip", lambda model, most: math.nan)
        train(recipe, tmp_path / "run", resume=True)


def test_39_weights_that_are_no_numbers_are_not_measured(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = train(recipe_of(text, steps=1), tmp_path / "run")
    with torch.no_grad():
        for p in done.model.parameters():
            p.fill_(math.nan)
    with RunFolder.resume(done.path) as run:
        run.write_weights(done.model.state_dict())
    for words, says in (
        (["evaluate", done.path], "its weights are no use"),
        (["generate", done.path, "the"], "a logit is nan"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            code = main([*map(str, words)])
        *warned, line = capsys.readouterr().err.splitlines()
        assert code == 5
        assert says in line
        assert len(warned) == len(done.model.state_dict())
        assert all(re.fullmatch("warning: .* has \\d+ values that are not finite", told) for told in warned)


# 43: no space left


@pytest.mark.parametrize("what", ["tensors.safetensors", ".anyformer-", "metrics.jsonl"])
def test_43_a_full_disk_while_saving(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    recipe = written(tmp_path / "recipe.yaml", recipe_of(text))
    run = tmp_path / "run"
    write, append = Disk.write, Disk.append

    def full(path: Path) -> bool:
        return path.name.startswith(what) and any((run / "snapshots").glob("step-00000003"))

    def fail(path: Path) -> None:
        if full(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def failing_write(self: Disk, path: Path, chunks: Iterable[Chunk]) -> None:
        fail(path)
        write(self, path, chunks)

    def failing_append(self: Disk, path: Path, data: bytes) -> None:
        fail(path)
        append(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "write", failing_write)
        patch.setattr(Disk, "append", failing_append)
        code, line = refused(capsys, "train", recipe, "--out", run)
    assert code == 4
    assert "No space left on device" in line
    assert not [*run.rglob("*.tmp")]
    with RunFolder.resume(run) as folder:
        snapshot = folder.latest_snapshot()
    assert snapshot is not None
    assert snapshot.step == 3
    assert main(["train", "--resume", "--out", str(run), "--quiet"]) == 0
    capsys.readouterr()
    train(recipe, tmp_path / "straight")
    same_ending(run, tmp_path / "straight")


# 42, 47: killed and asked to stop, as real processes


def command(recipe: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", "anyformer", "train", str(recipe), "--out", str(run)]


@pytest.fixture
def endless(text: Path, tmp_path: Path) -> Path:
    """A recipe that is stopped before it ends."""
    return written(tmp_path / "endless.yaml", recipe_of(text, steps=10**6, schedule={"kind": "constant", "warmup": 3}))


def wait_for_steps(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if (run / "metrics.jsonl").exists() and '"step": 5' in (run / "metrics.jsonl").read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"no step was made: {process.communicate()}")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda v: str(int(v))
)
def test_47_asked_to_stop_it_saves_and_says_how_to_go_on(
    endless: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = tmp_path / "a run"
    with subprocess.Popen(
        command(endless, run), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        wait_for_steps(run, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == f"{run}\n"
    assert "Traceback" not in err
    assert f"stopped on request; go on with: anyformer train --resume --out '{run}'" in err
    saved = [int(step) for step in re.findall(r"step (\d+): saved", err)]
    with RunFolder.resume(run) as folder:
        snapshot = folder.latest_snapshot()
    assert snapshot is not None
    assert snapshot.step == saved[-1]
    goal = f"budget.steps={snapshot.step + 10}"
    assert main(["train", "--resume", "--out", str(run), "--set", goal, "--quiet"]) == 0
    assert main(["train", str(endless), "--out", str(tmp_path / "b"), "--set", goal, "--quiet"]) == 0
    assert (run / "weights.safetensors").read_bytes() == (tmp_path / "b" / "weights.safetensors").read_bytes()
    assert lines(run)[-1] == lines(tmp_path / "b")[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=lambda v: str(int(v)))
def test_47_asked_twice_it_stops_at_once(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    """In this process: the first signal comes in a step, the second while that step is being saved."""
    asked: list[str] = []

    def ask(report: Report) -> None:
        if report.step == 5 and report.values:
            asked.append("first")
            signal.raise_signal(number)

    def insist(self: Trainer, run: RunFolder) -> None:
        if self.spent.steps == 5:
            asked.append("second")
            signal.raise_signal(number)
        raise AssertionError("not reached")

    def terminated(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, terminated), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as stopped:
            monkeypatch.setattr(Trainer, "save", insist)
            train(recipe_of(text, snapshots={"every": 100}), tmp_path / "run", report=ask)
        assert signal.getsignal(signal.SIGINT) == before[1]
        assert signal.getsignal(signal.SIGTERM) == terminated
    finally:
        signal.signal(signal.SIGTERM, before[0])
    assert asked == ["first", "second"]
    if number == signal.SIGTERM:
        assert stopped.value.code == code  # pyright: ignore
    assert not (tmp_path / "run" / ".lock").exists()


def test_42_killed_at_random_moments_and_resumed(text: Path, tmp_path: Path) -> None:
    recipe = recipe_of(text, steps=120, snapshots={"every": 4}, evaluate={"every": 20}, mixer={"dropout": 0.1})
    outcome = kill_and_resume([str(written(tmp_path / "recipe.yaml", recipe))], tmp_path, kills=2)
    assert outcome.well, str(outcome)
    assert outcome.kills >= 1


@pytest.mark.slow
@pytest.mark.needs_shared
def test_42_twenty_kills_of_the_shakespeare_recipe(tmp_path: Path) -> None:
    changes = ["budget.steps=200", "snapshots.every=5", "evaluate.every=50", "evaluate.batches=4"]
    words = ["shakespeare", *(word for change in changes for word in ("--set", change))]
    outcome = kill_and_resume(words, tmp_path, kills=20)
    print(outcome)
    assert outcome.well, str(outcome)
    assert outcome.kills >= 15


def test_42_the_killer_sees_what_is_wrong(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that forgets where its dice stood must not pass."""
    recipe = recipe_of(text, steps=10, mixer={"dropout": 0.3})
    train(recipe, tmp_path / "a")
    train(recipe, tmp_path / "b", report=stop_after(4))
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    torch.manual_seed(99)
    train(recipe, tmp_path / "b", resume=True)
    with pytest.raises(AssertionError):
        same_ending(tmp_path / "a", tmp_path / "b")


def test_the_error_of_a_full_disk_is_a_resource_error(text: Path, tmp_path: Path) -> None:
    def fail(self: RunFolder, *_: object) -> Path:
        raise ResourceError("cannot write it")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ResourceError, match="there is no snapshot yet"):
        patch.setattr(RunFolder, "save_snapshot", fail)
        train(recipe_of(text), tmp_path / "run")
