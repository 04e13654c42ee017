"""Run folders when all goes well: what is written is what is read, by whom, and in which order."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyformer.core.errors import ConfigError, InputError, ResourceError
from anyformer.runs.files import DISK, atomic_write
from anyformer.runs.folder import RunFolder
from anyformer.runs.header import DTYPES
from anyformer.runs.pack import pack_state, unpack_state
from anyformer.runs.snapshot import Snapshot
from anyformer.runs.weights import load_tensors, save_tensors


def make(path: Path) -> RunFolder:
    return RunFolder.create(
        path, spec={"kind": "decoder", "width": 64}, recipe="seed: 1\n", tokenizer='{"t": "ä"}', info={"seed": 1}
    )


def same(a: object, b: object) -> bool:
    """Equal in value, type and, for tensors, dtype and shape."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def test_what_is_created_is_read_back(tmp_path: Path):
    with make(tmp_path / "run") as run:
        assert (run.spec["width"], run.recipe, run.tokenizer, run.info) == (64, "seed: 1\n", '{"t": "ä"}', {"seed": 1})
    run = RunFolder.open(tmp_path / "run")
    assert run.spec == {"kind": "decoder", "width": 64}
    assert not (tmp_path / "run" / ".lock").exists()
    assert {path.name for path in run.path.iterdir()} == {
        *("spec.json", "recipe.yaml", "tokenizer.json", "run.json", "metrics.jsonl", "manifest.json", "snapshots")
    }


@pytest.mark.parametrize("name", ["two words", "Ünï-代码-🙂", "x" * 250, "-set", "a'b\"c$d", "deep/er/still"])
def test_odd_names(tmp_path: Path, name: str):
    path = tmp_path / name
    with make(path) as run:
        run.write_weights({"wörter.weight": torch.ones(2)})
        run.save_snapshot(Snapshot(1, {"a b/c": torch.ones(2)}, {"ä": "ö"}))
    with RunFolder.resume(path) as run:
        snap = run.latest_snapshot()
        assert snap and torch.equal(snap.tensors["a b/c"], torch.ones(2)) and snap.facts == {"ä": "ö"}
        assert list(run.weights()) == ["wörter.weight"]
    with pytest.raises(ResourceError, match="shorter name"):
        make(tmp_path / ("x" * 256))


def test_a_folder_in_use_by_others_is_not_touched(tmp_path: Path):
    make(tmp_path / "run").close()
    with pytest.raises(ConfigError, match=r"already holds a run: add --resume .* or choose another folder with --out"):
        make(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "spec.json").write_text("my own")
    with pytest.raises(ConfigError, match=r"not empty: .*--out"):
        make(tmp_path / "mine")
    with pytest.raises(InputError, match="not a run"):
        RunFolder.resume(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["spec.json"]
    with pytest.raises(ConfigError, match="is a file"):
        make(tmp_path / "mine" / "spec.json")
    with pytest.raises(InputError, match="there is no such folder"):
        RunFolder.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert not RunFolder.exists(tmp_path / "empty") and RunFolder.exists(tmp_path / "run")
    make(tmp_path / "empty").close()


def test_a_reader_cannot_write_and_needs_no_lock(tmp_path: Path):
    with make(tmp_path / "run") as run:
        run.write_weights({"w": torch.ones(1)})
        reader = RunFolder.open(tmp_path / "run")
        run.write_weights({"w": torch.full((1,), 2.0)})  # meanwhile
        assert reader.weights()["w"] == 2
        for write in (
            lambda: reader.write("note.txt", b""),
            lambda: reader.append_metrics({}),
            lambda: reader.save_snapshot(Snapshot(1, {}, {})),
            lambda: reader.rewind_metrics(0),
        ):
            with pytest.raises(ValueError, match=r"RunFolder\.resume"):
                write()


def test_weights_of_every_dtype_and_shape_as_safetensors_reads_them(tmp_path: Path):
    tensors = {
        name: torch.randn(3, 5).mul(50).to(getattr(torch, name)) if name != "bool" else torch.rand(3, 5) > 0.5
        for name, _ in DTYPES.values()
    }
    tensors |= {"scalar": torch.tensor(3.5), "none": torch.empty(0, 4), "turned": torch.randn(3, 5).t()}
    tensors |= {
        "row": tensors["float32"][1],
        "conj": tensors["complex64"].conj(),
        "leaf": torch.ones(2).requires_grad_(),
    }
    path = tmp_path / "w.safetensors"
    save_tensors(DISK, path, tensors, {"format": "pt"})
    for ours in (load_tensors(path), safetensors.torch.load_file(path)):
        assert ours.keys() == tensors.keys()
        assert all(same(ours[name], tensors[name].detach().resolve_conj()) for name in tensors)
    safetensors.torch.save_file({"x": torch.arange(5)}, path)
    assert torch.equal(load_tensors(path)["x"], torch.arange(5))


@pytest.mark.parametrize(
    "name, tensor",
    [
        ("x", torch.empty(2, device="meta")),
        ("x", torch.eye(2).to_sparse()),
        ("x", torch.ones(2).to(torch.float8_e4m3fn)),
        ("../x", torch.ones(1)),
        ("a\nb", torch.ones(1)),
        ("", torch.ones(1)),
        ("x" * 513, torch.ones(1)),
    ],
)
def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path, name: str, tensor: torch.Tensor):
    with pytest.raises(ValueError, match=r"x|a\\nb|''"):
        save_tensors(DISK, tmp_path / "w", {name: tensor})
    assert not list(tmp_path.iterdir())


def test_best_weights_and_weights_not_there_yet(tmp_path: Path):
    with make(tmp_path / "run") as run:
        with pytest.raises(InputError, match=r"has no weights\.safetensors"):
            run.weights()
        run.write_weights({"w": torch.ones(1)}, best=True)
        with pytest.raises(InputError, match=r"there is weights\.best\.safetensors"):
            run.weights()
        assert run.weights(best=True)["w"] == 1


def test_weights_that_are_not_finite_are_noted(tmp_path: Path):
    with make(tmp_path / "run") as run:
        run.write_weights({"w": torch.tensor([1.0, float("nan"), float("inf")]), "n": torch.tensor([1])})
        run.weights()
        assert len(run.notes) == 1 and "w has 2 values that are not finite" in run.notes[0]


def test_metrics_are_there_at_once_and_rewound_byte_for_byte(tmp_path: Path):
    with make(tmp_path / "run") as run:
        path = run.path / "metrics.jsonl"
        for step in range(1, 6):
            run.append_metrics({"step": step, "loss": 1 / step, "text": "ä\n"})
            assert path.read_bytes().count(b"\n") == step
        run.append_metrics({"step": 5, "loss": float("nan"), "more": [float("inf")]})
        assert run.read_metrics()[-1] == {"step": 5, "loss": None, "more": [None]}
        before = path.read_bytes().splitlines(keepends=True)
        with path.open("ab") as file:
            file.write(b'{"step": 6, "lo')
        assert len(run.read_metrics()) == 6 and not run.notes  # a line that is just being written
        run.rewind_metrics(3)
        assert path.read_bytes() == b"".join(before[:3])
        run.append_metrics({"step": 4})
    with RunFolder.resume(tmp_path / "run") as run:
        assert [record["step"] for record in run.read_metrics()] == [1, 2, 3, 4] and not run.notes


def test_snapshots_newest_first_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with make(tmp_path / "run") as run:
        for i, step in enumerate((9, 10, 99_999_999, 100_000_000)):
            monkeypatch.setattr(time, "time", lambda i=i: 1e9 - 1e7 * i)  # it runs backwards
            run.save_snapshot(Snapshot(step, {"w": torch.tensor(step)}, {"step": step}), keep=3)
        names = sorted(path.name for path in (run.path / "snapshots").iterdir())
        assert names == ["step-00000010", "step-100000000", "step-99999999"]
        snap = run.latest_snapshot()
        assert snap and snap.step == 100_000_000 and snap.tensors["w"] == 100_000_000
        # The same step again, then an earlier one: the last that was saved is the one that counts.
        for step, value in ((100_000_000, 1), (100_000_000, 2), (50, 3)):
            path = run.save_snapshot(Snapshot(step, {"w": torch.tensor(value)}, {}), keep=2)
            snap = run.latest_snapshot()
            assert snap and snap.step == step and snap.tensors["w"] == value
            assert path.exists() and not run.notes
        check = subprocess.run(["sha256sum", "-c", "sha256s"], cwd=path, capture_output=True)
        assert check.returncode == 0
        with pytest.raises(ValueError, match="keep is 0"):
            run.save_snapshot(Snapshot(1, {}, {}), keep=0)


def test_an_optimizer_goes_on_exactly(tmp_path: Path):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW([{"params": [model.weight], "lr": 0.1}, {"params": [model.bias]}])

    def step():
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()

    step()
    tensors, facts = pack_state(
        {"optimizer": optimizer.state_dict(), "model": dict(model.state_dict()), "random": random.getstate()}
    )
    with make(tmp_path / "run") as run:
        run.save_snapshot(Snapshot(1, {**tensors, "rng": torch.get_rng_state()}, {"state": facts}))
        kept = run.latest_snapshot()
    step()
    after = [p.detach().clone() for p in model.parameters()]
    assert kept
    state = unpack_state(dict(kept.tensors), kept.facts["state"])
    assert isinstance(state, dict) and same(state["random"], random.getstate())
    assert list(state["optimizer"]["state"]) == [0, 1]
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(kept.tensors["rng"])
    step()
    assert all(map(torch.equal, after, model.parameters()))


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.builds(
        lambda shape, dtype: torch.arange(6).reshape(shape).to(dtype).t(),
        st.sampled_from([(2, 3), (6,)]),
        st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8]),
    ),
    st.builds(torch.tensor, st.integers(0, 9)),
)
keys = st.one_of(
    st.text(), st.integers(), st.booleans(), st.none(), st.sampled_from(["$tensor", "$dict", "a.b", "../x"])
)
nested = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=12,
)


@given(nested)
def test_any_state_is_packed_and_comes_back_exactly(state: object):
    tensors, facts = pack_state(state)
    text = json.dumps(facts, allow_nan=False)
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    assert same(unpack_state(safetensors.torch.load(data), json.loads(text)), state)


def test_a_tensor_in_two_places_stays_one(tmp_path: Path):
    shared, base = torch.ones(2), torch.arange(6.0)
    tensors, facts = pack_state({"a": shared, "b": [shared], "head": base[:3], "odd": base[1::2]})
    assert len(tensors) == 3
    save_tensors(DISK, tmp_path / "s", tensors)
    state = unpack_state(load_tensors(tmp_path / "s"), facts)
    assert isinstance(state, dict) and state["a"] is state["b"][0]
    state["head"][0] = 7  # views come back apart
    assert state["odd"].tolist() == [1, 3, 5]
    with pytest.raises(ValueError, match=r"\.a\.0 is a set; a state is made of"):
        pack_state({"a": [{1}]})
    with pytest.raises(ValueError, match="belongs into tensors"), make(tmp_path / "run") as run:
        run.save_snapshot(Snapshot(1, {}, {"w": shared}))


def test_importing_runs_does_not_import_torch():
    code = "import sys, anyformer.runs.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_atomic_write_replaces_as_a_whole(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    for data in (b"old", b"new"):
        atomic_write(DISK, path, [data, memoryview(b"!")])
        assert path.read_bytes() == data + b"!"
    assert list(tmp_path.iterdir()) == [path]
