"""Files of a run under faults: every operation killed, failed or un-synced, every byte flipped, every limit crossed.

The numbers in the names are those of the list of faults (docs: `anyformer doctor --faults`).
"""

import errno
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from faulty_disk import FaultyDisk, Killed, Unsynced, fail_at, full_from, kill_at, never
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyformer.core.errors import InputError, ResourceError
from anyformer.runs.files import DISK
from anyformer.runs.folder import RunFolder
from anyformer.runs.header import MAX_HEADER, read_header
from anyformer.runs.snapshot import Snapshot, found, read
from anyformer.runs.weights import load_tensors, save_tensors, tensor_chunks

# A run's life, told to a disk that fails


def create(path: Path, files: FaultyDisk) -> RunFolder:
    return RunFolder.create(path, spec={"kind": "x"}, recipe="a: 1\n", tokenizer="{}", info={"n": 0}, files=files)


def state(step: int) -> Snapshot:
    return Snapshot(step, {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}, {"step": step})


class Life:
    """A run with one snapshot, and the steps that then go wrong; `said` holds what was announced as done."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.disk = FaultyDisk(root)
        self.path = root / "run"
        self.run = create(self.path, self.disk)
        self.run.write_weights({"w": torch.tensor(1)})
        self.run.append_metrics({"step": 10})
        self.run.save_snapshot(state(10))
        self.said: dict[str, int] = {"snapshot": 10, "weights": 1, "info": 0, "metrics": 10}
        self.before = len(self.disk.operations)

    def steps(self) -> Iterator[tuple[str, int, Callable[[], object]]]:
        run = self.run
        yield "metrics", 20, lambda: run.append_metrics({"step": 20})
        yield "snapshot", 20, lambda: run.save_snapshot(state(20))
        yield "weights", 2, lambda: run.write_weights({"w": torch.tensor(2)})
        yield "info", 1, lambda: run.write_info({"n": 1})
        yield "metrics", 30, lambda: run.append_metrics({"step": 30})
        yield "snapshot", 30, lambda: run.save_snapshot(state(30), keep=1)
        yield "snapshot", 30, lambda: run.save_snapshot(state(30), keep=1)
        yield "weights", 3, lambda: run.write_weights({"w": torch.tensor(3)})

    def go(self) -> None:
        for what, value, act in self.steps():
            act()
            self.said[what] = value
        self.run.close()

    def drop_lock(self) -> None:
        """What the system does for a process that it killed."""
        if self.run.lock:
            with suppress(OSError):
                os.close(self.run.lock.handle)


def check(path: Path, said: dict[str, int], power_cut: bool = False) -> None:
    """The run opens, holds all that was announced, and goes on."""
    with RunFolder.resume(path, files=Unsynced()) as run:
        snap = run.latest_snapshot()
        assert snap and snap.step >= said["snapshot"]
        assert snap.facts == {"step": snap.step} and torch.equal(snap.tensors["w"], torch.full((3,), float(snap.step)))
        for whole in found(path / "snapshots"):  # none that is half written, none that is half removed
            read(whole)
        assert said["weights"] <= run.weights()["w"] <= said["weights"] + 1
        assert said["info"] <= run.info["n"] <= said["info"] + 1  # type: ignore[operator]
        assert not [note for note in run.notes if "lock" not in note and not power_cut], run.notes
        run.rewind_metrics(snap.step)
        steps = [record["step"] for record in run.read_metrics()]
        assert steps == [step for step in (10, 20, 30) if step <= snap.step]
        run.save_snapshot(state(40))
        run.write_weights({"w": torch.tensor(4)})
        names = [inside.name for folder in (path, path / "snapshots") for inside in folder.iterdir()]
        assert not [name for name in names if name.endswith(".tmp")]
    reader = RunFolder.open(path)
    latest = reader.latest_snapshot()
    assert latest and latest.step == 40 and reader.weights()["w"] == 4


def count_operations(root: Path) -> tuple[int, int]:
    life = Life(root)
    life.go()
    return life.before, len(life.disk.operations)


def test_42_killed_at_every_operation(tmp_path: Path):
    first, last = count_operations(tmp_path / "whole")
    assert last - first > 60
    for k in range(first, last):
        life = Life(tmp_path / str(k))
        life.disk.fault = kill_at(k)
        with pytest.raises(Killed):
            life.go()
        life.drop_lock()
        check(life.path, life.said)


def test_42_killed_while_being_created_it_can_be_created_again(tmp_path: Path):
    disk = FaultyDisk(tmp_path)
    create(tmp_path / "whole", disk).close()
    for k in range(len(disk.operations)):
        path = tmp_path / f"parent {k}" / "run"
        with pytest.raises(Killed):
            create(path, FaultyDisk(tmp_path, kill_at(k))).close()
        if path.exists():
            (path / ".lock").write_text(json.dumps({"pid": 1, "host": socket.gethostname(), "time": ""}))
        if RunFolder.exists(path):  # killed when all was done, or in close
            RunFolder.resume(path).close()
        else:
            with pytest.raises(InputError, match=r"not a run|interrupted while it was being created"):
                RunFolder.open(path)
            with pytest.raises(InputError):
                RunFolder.resume(path)
            RunFolder.create(path, spec={}, recipe="", tokenizer=None, info={}).close()
            assert RunFolder.open(path).spec == {} and not (path / "tokenizer.json").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_43_44_each_operation_fails_once(tmp_path: Path, code: int):
    first, last = count_operations(tmp_path / "whole")
    for k in range(first, last):
        life = Life(tmp_path / str(k))
        life.disk.fault = fail_at(k, code)
        try:
            for what, value, act in life.steps():
                try:
                    act()
                except ResourceError as error:
                    assert "\n" not in str(error) and f"cannot write {life.path}" in str(error)
                    # What was there is still there, also for a reader beside it, and the next try succeeds.
                    reader = RunFolder.open(life.path)
                    snap = reader.latest_snapshot()
                    assert snap and snap.step >= life.said["snapshot"] and not reader.notes
                    assert reader.weights()["w"] >= life.said["weights"]
                    act()
                life.said[what] = value
            with suppress(ResourceError):
                life.run.close()
        finally:
            life.drop_lock()
        check(life.path, {**life.said, "snapshot": 30}, power_cut=True)


@pytest.mark.parametrize(
    "code, advice",
    [
        (errno.ENOSPC, "No space left on device; free some space, or write to another disk with --out"),
        (errno.EDQUOT, "your quota is used up"),
        (errno.EROFS, "this disk can only be read"),
        (errno.EACCES, "you may not write there"),
        (errno.EIO, "see whether the disk is well"),
    ],
)
def test_43_the_line_says_what_to_do(tmp_path: Path, code: int, advice: str):
    with pytest.raises(ResourceError, match=rf"cannot write .*w: .*{advice}.* saved before is intact"):
        save_tensors(FaultyDisk(tmp_path, fail_at(0, code)), tmp_path / "w", {})


def test_43_full_for_good_and_then_not(tmp_path: Path):
    first, last = count_operations(tmp_path / "whole")
    for k in range(first, last, 3):
        life = Life(tmp_path / str(k))
        life.disk.fault = full_from(k)
        for what, value, act in life.steps():
            try:
                act()
                life.said[what] = value
            except ResourceError as error:
                assert "No space left on device; free some space" in str(error)
                assert not list(life.path.rglob("*.tmp"))
        life.disk.fault = never
        life.run.append_metrics({"step": 35})
        records = life.run.read_metrics()
        assert records[-1] == {"step": 35} and records[0] == {"step": 10}
        life.run.rewind_metrics(30)
        life.run.close()
        snap = RunFolder.open(life.path).latest_snapshot()
        assert snap and snap.step >= life.said["snapshot"]


def test_44_power_cut_keeps_any_part_of_what_was_not_synced(tmp_path: Path):
    first, last = count_operations(tmp_path / "whole")
    for k in range(first, last):
        life = Life(tmp_path / str(k))
        life.disk.fault = kill_at(k)
        with pytest.raises(Killed):
            life.go()
        life.drop_lock()
        for seed in range(2):
            image = tmp_path / f"{k} after {seed}"
            life.disk.cut_power(image, 1000 * k + seed)
            # Lines of metrics are promised up to the last announced snapshot; the check asks for no more.
            check(image / "run", life.said, power_cut=True)
            shutil.rmtree(image)


def test_42_sigkill_at_random_moments_loses_nothing_announced(tmp_path: Path):
    path = tmp_path / "run"
    RunFolder.create(path, spec={}, recipe="", tokenizer=None, info={}).close()
    draw = random.Random(7)
    step = 0
    for _ in range(10):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:  # saves until it is killed; _exit, so that nothing of pytest runs twice
            try:
                run = RunFolder.resume(path)
                for at in range(step + 1, 1_000_000):
                    run.append_metrics({"step": at})
                    run.write_weights({"w": torch.tensor(at)})
                    run.save_snapshot(state(at))
                    os.write(writing, b"%d\n" % at)
            finally:
                os._exit(1)
        os.close(writing)
        said = os.read(reading, 100)
        time.sleep(draw.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reading, 1 << 16):
            said += more
        os.close(reading)
        announced = int(said.split()[-1])
        assert announced > step
        with RunFolder.resume(path) as run:
            snap = run.latest_snapshot()
            assert snap and snap.step in (announced, announced + 1) and snap.facts == {"step": snap.step}
            assert snap.tensors["n"] == snap.step and run.weights()["w"] >= announced
            assert len(run.notes) == 1 and f"process {child}" in run.notes[0] and "is gone" in run.notes[0]
            run.rewind_metrics(snap.step)
            step = snap.step
            assert [record["step"] for record in run.read_metrics()] == list(range(1, step + 1))


SMALL_DISK = r"""
import json, subprocess, sys
from pathlib import Path
import torch
from anyformer.core.errors import ResourceError
from anyformer.runs.folder import RunFolder
from anyformer.runs.snapshot import Snapshot

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=True)
said = {}
run = RunFolder.create(disk / "run", spec={}, recipe="", tokenizer=None, info={})
run.write_weights({"w": torch.ones(10_000)})
run.save_snapshot(Snapshot(1, {"w": torch.ones(10_000)}, {}))
for name, act in {
    "weights": lambda: run.write_weights({"w": torch.zeros(90_000)}),
    "snapshot": lambda: run.save_snapshot(Snapshot(2, {"w": torch.zeros(90_000)}, {})),
}.items():
    try:
        act()
    except ResourceError as error:
        said[name] = str(error)
run.append_metrics({"step": 1})
said["left"] = [str(path) for path in disk.rglob("*.tmp")]
run.save_snapshot(Snapshot(3, {"w": torch.ones(10_000)}, {}))
run.close()
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
try:
    RunFolder.resume(disk / "run")
except ResourceError as error:
    said["read-only"] = str(error)
run = RunFolder.open(disk / "run")
said["kept"] = [run.latest_snapshot().step, float(run.weights()["w"].sum()), run.read_metrics()]
print(json.dumps(said))
"""


def test_43_a_disk_that_is_really_full_and_then_read_only(tmp_path: Path):
    private = ["unshare", "--user", "--map-root-user", "--mount"]  # the mount is seen by this process alone
    if not shutil.which("unshare") or subprocess.run([*private, "mount", "-t", "tmpfs", "x", tmp_path]).returncode:
        pytest.skip("this system does not let a test mount a small disk")
    done = subprocess.run([*private, sys.executable, "-c", SMALL_DISK, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "weights.safetensors: No space left on device; free some space" in said["weights"]
    assert "step-00000002: No space left on device; free some space" in said["snapshot"]
    assert "this disk can only be read" in said["read-only"]
    assert said["left"] == [] and said["kept"] == [3, 10_000, [{"step": 1}]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; the read-only disk above stands in")
def test_43_a_folder_without_permission(tmp_path: Path):
    RunFolder.create(tmp_path / "run", spec={}, recipe="", tokenizer=None, info={}).close()
    tmp_path.chmod(0o500)
    (tmp_path / "run").chmod(0o500)
    try:
        with pytest.raises(ResourceError, match="you may not write there"):
            RunFolder.resume(tmp_path / "run")
        with pytest.raises(ResourceError, match="you may not write there"):
            RunFolder.create(tmp_path / "new", spec={}, recipe="", tokenizer=None, info={})
        assert RunFolder.open(tmp_path / "run").spec == {}
    finally:
        tmp_path.chmod(0o700)
        (tmp_path / "run").chmod(0o700)


# Damage


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    life = Life(tmp_path_factory.mktemp("pristine") / "disk")
    life.run.append_metrics({"step": 20, "loss": 1.5})
    life.run.save_snapshot(state(20))
    life.run.close()
    return life.path


def damage(path: Path, at: float, bit: int | None) -> None:
    """Flips a bit of a file, or cuts the file there."""
    data = bytearray(path.read_bytes())
    place = int(at * len(data))
    if bit is None:
        path.write_bytes(data[:place])
    else:
        data[place] ^= 1 << bit
        path.write_bytes(data)


FILES = ["weights.safetensors", "spec.json", "recipe.yaml", "tokenizer.json", "run.json", "manifest.json"]
places = st.floats(0, 1, exclude_max=True)
bits = st.none() | st.integers(0, 7)
once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@once
@given(st.sampled_from(FILES), places, bits)
def test_45_a_damaged_file_is_named_and_never_believed(pristine: Path, name: str, at: float, bit: int | None):
    path = pristine.parent / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(pristine, path)
    damage(path / name, at, bit)
    try:
        run = RunFolder.open(path)
        seen = (run.spec, run.recipe, run.tokenizer, run.info, run.weights()["w"].item())
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        assert name == "manifest.json" or name in str(error)
        return
    assert name == "manifest.json"  # a letter of a hash that is not looked at, or of the line for the metrics
    assert seen[:2] == ({"kind": "x"}, "a: 1\n") and seen[2] in ("{}", None) and seen[3:] == ({"n": 0}, 1)


@once
@given(st.sampled_from(["tensors.safetensors", "facts.json", "sha256s"]), places, bits)
def test_45_a_damaged_snapshot_is_named_and_the_one_before_taken(pristine: Path, name: str, at: float, bit: int | None):
    path = pristine.parent / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(pristine, path)
    damage(path / "snapshots" / "step-00000020" / name, at, bit)
    with RunFolder.resume(path, files=Unsynced()) as run:
        snap = run.latest_snapshot()
        assert snap and torch.equal(snap.tensors["w"], torch.full((3,), float(snap.step)))
        assert snap.facts == {"step": snap.step}
        if snap.step == 20:
            assert name == "sha256s" and not run.notes  # only the end of its last line was hit
            return
        assert snap.step == 10 and "step-00000020" in run.notes[0] and "using the snapshot of step 10" in run.notes[0]
        assert name == "sha256s" or name in run.notes[0]
        for step in (20, 30):  # made again; whole ones are kept, not the damaged one
            path = run.save_snapshot(state(step))
            damage(path / "facts.json", 0.5, 1)
            again = run.latest_snapshot()
            assert again and again.step == snap.step


@once
@given(places, bits)
def test_45_damaged_metrics_are_noted_and_do_not_stop_anyone(pristine: Path, at: float, bit: int | None):
    path = pristine.parent / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(pristine, path)
    damage(path / "metrics.jsonl", at, bit)
    reader = RunFolder.open(path)
    assert len(reader.read_metrics()) <= 3 and "metrics.jsonl has changed" in reader.notes[0]
    with RunFolder.resume(path, files=Unsynced()) as run:
        run.rewind_metrics(20)
        run.append_metrics({"step": 21})
        assert run.read_metrics()[-1] == {"step": 21}


def test_45_no_snapshot_is_whole(tmp_path: Path, pristine: Path):
    shutil.copytree(pristine, tmp_path / "run")
    for facts in (tmp_path / "run").rglob("facts.json"):
        facts.write_bytes(b"{}")
    run = RunFolder.open(tmp_path / "run")
    assert run.latest_snapshot() is None
    assert len(run.notes) == 2 and all("there is no older snapshot" in note for note in run.notes)


def test_26_another_format_version(tmp_path: Path, pristine: Path):
    shutil.copytree(pristine, tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    for use in (RunFolder.open, RunFolder.resume):
        with pytest.raises(InputError, match=r"format 2; this anyformer reads formats up to 1: install .* format 2"):
            use(tmp_path / "run")


# Locks

HOLD = """
import sys, time
from anyformer.runs.folder import RunFolder
run = RunFolder.resume(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
run.close()
"""


def test_46_the_second_process_is_refused(tmp_path: Path, pristine: Path):
    shutil.copytree(pristine, tmp_path / "run")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin and holder.stdout
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ResourceError, match=f"in use by process {holder.pid} on .* \\(since 20.*--out"):
            RunFolder.resume(tmp_path / "run")
        assert RunFolder.open(tmp_path / "run").spec == {"kind": "x"}
        holder.stdin.close()
    with RunFolder.resume(tmp_path / "run") as run:
        assert not run.notes
        with pytest.raises(ResourceError, match=f"in use by process {os.getpid()}"):
            RunFolder.resume(tmp_path / "run")


def test_46_a_lock_left_behind(tmp_path: Path, pristine: Path):
    shutil.copytree(pristine, tmp_path / "run")
    lock = tmp_path / "run" / ".lock"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock.write_text(json.dumps({"pid": gone.pid, "host": socket.gethostname(), "time": "2030-01-01T00:00:00"}))
    with RunFolder.resume(tmp_path / "run") as run:
        assert f"left locked by process {gone.pid}" in run.notes[0] and "gone" in run.notes[0]
    for torn in ("", "{", "[]", '{"pid": 1'):
        lock.write_text(torn)
        RunFolder.resume(tmp_path / "run").close()
    lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "time": "then"}))
    with pytest.raises(ResourceError, match=r"process 1 on elsewhere .* if it has ended, delete .*\.lock"):
        RunFolder.resume(tmp_path / "run")
    lock.unlink()
    RunFolder.resume(tmp_path / "run").close()


# Files of weights from anywhere


def made(header: object, data: int = 0, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def one(**change: object) -> dict[str, object]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}}


GOOD = made(one(), 8)
BAD = {
    "1 zero bytes": (b"", "0 bytes long, .* at least 8"),
    "1 seven bytes": (b"1234567", "7 bytes long, .* at least 8"),
    "2 cut in the header": (GOOD[:30], "cut short: at least [0-9]+ bytes expected, 30 are there"),
    "2 cut in the data": (GOOD[:-3], f"cut short: {len(GOOD)} bytes expected, {len(GOOD) - 3} are there"),
    "2 too long": (GOOD + b"!", f"too long: {len(GOOD)} bytes expected, {len(GOOD) + 1} are there"),
    "3 header of 2^63": (made(one(), 8, 2**63), f"header of {2**63} bytes; at most {MAX_HEADER}"),
    "3 header of 200 MB": (made(one(), 8, 200_000_000), "header of 200000000 bytes"),
    "4 overlap": (made(one() | {"y": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}, 8), "overlaps"),
    "4 hole": (made(one(data_offsets=[4, 12]), 12), "leaves 4 bytes unused"),
    "4 reversed": (made(one(data_offsets=[8, 0]), 8), "hold -8 bytes"),
    "4 negative": (made(one(data_offsets=[-8, 0]), 8), "not possible sizes"),
    "5 product overflows": (made(one(shape=[2**40, 2**40]), 8), "larger than any memory"),
    "5 empty but huge": (made(one(shape=[0, 2**62, 2**62], data_offsets=[0, 0])), "larger than any memory"),
    "5 shape against bytes": (made(one(shape=[3]), 8), "shape .3., but its data_offsets hold 8 bytes"),
    "5 a float for a size": (made(one(shape=[2.0]), 8), "not possible sizes"),
    "5 true for a size": (made(one(shape=[True], data_offsets=[0, 4]), 4), "not possible sizes"),
    "5 65 dimensions": (made(one(shape=[1] * 64 + [2]), 8), "not possible sizes"),
    "6 twice": (made(b'{"x":%s,"x":%s}' % ((json.dumps(one()["x"]).encode(),) * 2), 8), "'x' stands twice"),
    "7 many": (
        made({str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}),
        "100000 tensors; at most 65536",
    ),
    "7 long name": (made({"x" * 2**20: one()["x"]}, 8), "names have 1 to 512 letters"),
    "9 fp8": (made(one(dtype="F8_E4M3", shape=[8]), 8), "dtype 'F8_E4M3'; the dtypes read are F64"),
    "9 u16": (made(one(dtype="U16", shape=[4]), 8), "dtype 'U16'"),
    "10 a path": (made({"../../x": one()["x"]}, 8), "not paths out of a folder"),
    "10 a line end": (made({"a\nb": one()["x"]}, 8), "no control characters"),
    "10 a surrogate": (made({"\ud800": one()["x"]}, 8), "no control characters"),
    "14 zip": (b"PK\x03\x04\x00\x00\x08\x08" + bytes(100), "zip of pickles.*anyformer convert"),
    "14 pickle": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(100), "a pickle, .*anyformer convert"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "web page": (b"<!doctype html><html></html>", "a web page"),
    "not JSON": (made(b"{,}"), "not JSON"),
    "not UTF-8": (made(b'{"\xff":1}'), "not JSON"),
    "nested": (made(b"[" * 100_000), "not JSON"),
    "long number": (made(b'{"x":' + b"9" * 5000 + b"}"), "not JSON"),
    "a list": (made([]), "not a table"),
    "a missing key": (made({"x": {"dtype": "F32"}}), "must have exactly"),
    "one more key": (made(one(more=1), 8), "must have exactly"),
    "odd metadata": (made({"__metadata__": {"a": 1}}), "__metadata__ is not a table of texts"),
}


@pytest.mark.parametrize("data, message", BAD.values(), ids=BAD.keys())
def test_1_to_14_bad_weights_are_refused_before_any_tensor_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str
):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    monkeypatch.setattr(torch, "empty", None)
    with pytest.raises(InputError, match=message) as caught:
        load_tensors(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))
    assert str(caught.value).isprintable()


def test_10_pipes_devices_and_folders_are_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, what in (("pipe", "not a file"), ("link", "not a file"), (".", "not a file"), ("none", "no such file")):
        with pytest.raises(InputError, match=what):
            load_tensors(tmp_path / name)


@once
@given(
    st.binary(max_size=200)
    | st.builds(lambda at, new: GOOD[:at] + new + GOOD[at + len(new) :], st.integers(0, 80), st.binary(max_size=4))
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "w"
    path.write_bytes(data)
    with suppress(InputError):
        header = read_header(path)
        assert sum(entry.end - entry.start for entry in header.entries.values()) + len(header.raw) == len(data)
        assert load_tensors(path).keys() == header.entries.keys()


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "w"
    save_tensors(DISK, path, {"x": torch.zeros(1_000_000)})
    empty = torch.empty

    def cutting(*args: object, **more: object) -> torch.Tensor:
        os.truncate(path, 100_000)
        return empty(*args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "empty", cutting)
    with pytest.raises(InputError, match=r"ends within 'x', [0-9]+ bytes early"):
        load_tensors(path)


def test_an_interrupt_while_writing_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "w"
    save_tensors(DISK, path, {"x": torch.zeros(2)})

    class Interrupted:
        def write(self, path: Path, chunks: object) -> None:
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        mkdir, append, fsync, rename, remove = DISK.mkdir, DISK.append, DISK.fsync, DISK.rename, DISK.remove

    with pytest.raises(KeyboardInterrupt):
        save_tensors(Interrupted(), path, {"x": torch.ones(2)})
    assert os.listdir(tmp_path) == ["w"] and torch.equal(load_tensors(path)["x"], torch.zeros(2))
    assert b"".join(tensor_chunks({"x": torch.zeros(2)}, {})) == path.read_bytes()
