"""Models by their names on the hub: a small hub on this machine, its cache, and everything that can be in the way."""

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from test_published_folders import BLOCK, tokenizer

import anyformer as af
from anyformer.checkpoints.files import INDEX, Weights
from anyformer.checkpoints.pickles import BIN
from anyformer.cli.main import main
from anyformer.core.errors import InputError, ResourceError
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.models.export import export_hf
from anyformer.models.hub import Name, located, pinned

COMMIT, OLDER = "c" * 40, "0" * 40
ODD = ("README.md", "onnx/model.onnx", "model.fp16.safetensors", "modeling_tiny.py", BIN, "sub/config.json")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as others publish theirs, with much that nobody reads."""
    block = {"kind": "stack", "blocks": [BLOCK], "norm": "rms"}
    model = from_dict(AnyModel, {"kind": "decoder", "vocabulary": 300, "width": 16, "body": block}).build(seed=1)
    model.tokenizer = tokenizer()
    folder = tmp_path_factory.mktemp("published") / "tiny"
    export_hf(model, folder)
    for name in ODD:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    return folder


@dataclass
class Hub:
    """A server that speaks the few routes of the hub. folders: what it has; asked: the files that it gave.

    refused: a name -> what its answer is, and the code that the hub gives for a reason.
    """

    url: str
    folders: dict[str, Path] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    commit: str = COMMIT

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        match unquote(urlsplit(path).path).strip("/").split("/"):
            case ["api", "models", owner, name, "revision", revision]:
                repository = f"{owner}/{name}"
                if repository in self.refused:
                    status, code = self.refused[repository]
                    return status, {"X-Error-Code": code}, b"{}"
                if repository not in self.folders:
                    return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
                if revision not in ("main", "v1", self.commit):
                    return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
                return 200, {}, json.dumps({"id": repository, "sha": self.commit, "siblings": []}).encode()
            case ["api", "models", owner, name, "tree", _]:
                return 200, {}, json.dumps(self.tree(self.folders[f"{owner}/{name}"])).encode()
            case [owner, name, "resolve", commit, *file]:
                folder, at = self.folders[f"{owner}/{name}"], "/".join(file)
                data = (folder / at).read_bytes()
                head = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
                return 200, head, data
        return 404, {}, b""

    def tree(self, folder: Path) -> list[dict[str, Any]]:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return [
            {
                "type": "file",
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in files
        ]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path) -> Iterator[Hub]:
    """The hub, and a cache that is empty."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, head, data = made.answer(self.path)
            if self.command == "GET" and "/resolve/" in self.path:
                made.asked.append(self.path.partition(f"/resolve/{made.commit}/")[2])
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **head}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    made = Hub(f"http://127.0.0.1:{server.server_port}", {"ours/tiny": published})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    point_at(monkeypatch, made.url, tmp_path / "hf" / "hub")
    monkeypatch.chdir(tmp_path)
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def point_at(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """What HF_ENDPOINT and HF_HOME say, which the library reads once."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def refusal(name: str) -> str:
    with pytest.raises(InputError) as error:
        located(name)
    said = str(error.value)
    assert "\n" not in said and len(said) < 500
    return said


def test_what_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert Name.of(Path("a/b")) == Name("a/b", None)
    assert Name.of(Path("a/b-1.5_x@refs/pr/3")) == Name("a/b-1.5_x", "refs/pr/3")
    assert Name.of(Path("hf:runs/b@v1")) == Name("runs/b", "v1")
    for path in ("a", "a/b/c", "/a/b", "../a", "a/..", "runs/b", "a/b@", "~/b", "hf:a", "a b/c"):
        assert Name.of(Path(path)) is None, path


@torch.no_grad()
def test_what_is_read_is_fetched_and_no_more(hub: Hub, published: Path) -> None:
    model = af.load("ours/tiny")
    read = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sorted(hub.asked) == sorted(read)
    ids = torch.arange(12)[None]
    assert torch.equal(model(ids), af.load(published)(ids))
    folder = located("ours/tiny@v1")
    assert folder == located(f"hf:ours/tiny@{COMMIT}") and folder.name == COMMIT
    assert (folder / "model.safetensors").is_symlink()
    assert len(hub.asked) == len(read), "nothing is fetched again"


@torch.no_grad()
def test_shards_are_fetched_and_lie_behind_links(hub: Hub, published: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(published, folder)
    tensors = load_file(folder / "model.safetensors")
    table = {name: f"part-{at % 2}.safetensors" for at, name in enumerate(sorted(tensors))}
    for file in set(table.values()):
        save_file({name: tensor for name, tensor in tensors.items() if table[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": table}))
    hub.folders["ours/sharded"] = folder
    model = af.load("ours/sharded")
    assert {"part-0.safetensors", "part-1.safetensors"} < set(hub.asked)
    assert not {"model.safetensors", *ODD} & set(hub.asked)
    ids = torch.arange(12)[None]
    assert torch.equal(model(ids), af.load(published)(ids))


def test_a_link_out_of_a_cache_is_refused(hub: Hub, published: Path, tmp_path: Path) -> None:
    """A folder that is laid out as a cache may lead to its own blobs, and to none of other people's files."""
    weights = (published / "model.safetensors").read_bytes()
    repository = tmp_path / "made" / "models--a--b"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes((published / "config.json").read_bytes())
    names = dict.fromkeys(load_file(published / "model.safetensors"), "part.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    secret, part, blobs = tmp_path / "made" / "secret", folder / "part.safetensors", repository / "blobs"
    secret.write_bytes(weights)

    def opened(target: Path | str) -> bool:
        part.unlink(missing_ok=True)
        part.symlink_to(target)
        try:
            return len(Weights.open(folder)) > 0
        except InputError as error:
            assert "is no file of this folder" in str(error) or target == part.name
            return False

    blobs.mkdir()
    (blobs / "abc").write_bytes(weights)
    assert opened("../../blobs/abc")
    assert not opened(secret) and not opened("/etc/passwd") and not opened("../../../secret")
    assert not opened("part.safetensors"), "a link to itself"
    (blobs / "away").symlink_to(secret)
    assert not opened("../../blobs/away"), "a blob that is a link to elsewhere"
    shared = tmp_path / "made" / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    shared.write_bytes(weights)
    (blobs / "shared").symlink_to(shared)
    assert opened("../../blobs/shared"), "what the repositories of a cache share"
    (shared.parent / "passwd").write_bytes(weights)
    assert not opened(shared.parent / "passwd")
    shutil.rmtree(blobs)
    blobs.symlink_to(secret.parent)
    assert not opened(secret), "blobs that are a link to elsewhere"
    moved = repository / "others" / COMMIT
    shutil.move(folder, moved)
    folder, part = moved, moved / "part.safetensors"
    blobs.unlink()
    blobs.mkdir()
    (blobs / "abc").write_bytes(weights)
    assert not opened("../../blobs/abc"), "not laid out as a cache"


def test_a_path_comes_first(hub: Hub, published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "ours" / "tiny")
    assert located("ours/tiny") == Path("ours/tiny")
    said = refusal("ours/tinny")
    assert "there is no such folder" in said and "nearest: 'tiny'" in said and "hf:ours/tinny asks the hub" in said
    assert hub.asked == []
    assert located("hf:ours/tiny").name == COMMIT


def test_what_cannot_be_had_is_one_clear_line(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.refused = {
        "ours/gated": (403, "GatedRepo"),
        "ours/private": (401, "RepoNotFound"),
        "ours/broken": (418, ""),
    }
    assert "no such name on the hub" in refusal("ours/nothing")
    assert "no such name on the hub" in refusal("ours/private")
    assert "hf auth login" in refusal("ours/gated") and f"{hub.url}/ours/gated" in refusal("ours/gated")
    assert "the hub has ours/tiny, but no such revision" in refusal("ours/tiny@v2")
    assert "answered 418" in refusal("ours/broken")
    assert "is no name on the hub" in refusal("ours/a..b")
    assert main(["generate", "ours/gated", "a", "--tokens", "1"]) == 3
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1


def test_without_a_network_the_cache_is_read(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    located("ours/tiny")
    point_at(monkeypatch, closed_port(), tmp_path / "hf" / "hub")
    assert located("ours/tiny").name == COMMIT
    said = refusal("ours/other")
    assert "the hub gave none" in said and "fetch it where there is a network" in said
    assert af.load("ours/tiny").spec.width == 16
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert located("ours/tiny").name == COMMIT
    assert "HF_HUB_OFFLINE is set" in refusal("ours/other")


@torch.no_grad()
def test_a_cache_that_others_filled_is_read(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As older libraries lay it out, without a list of all files; nothing is asked of anybody."""
    point_at(monkeypatch, closed_port(), tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "hub" / "models--their--tiny"
    for name in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for at, name in enumerate(("config.json", "model.safetensors", "tokenizer.json")):
        shutil.copyfile(published / name, repository / "blobs" / str(at))
        (repository / "snapshots" / COMMIT / name).symlink_to(f"../../blobs/{at}")
    ids = torch.arange(12)[None]
    assert torch.equal(af.load("their/tiny")(ids), af.load(published)(ids))
    assert "HF_HUB_OFFLINE is set" in refusal("their/tiny@v2")


def test_what_was_half_fetched_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (located("ours/tiny") / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "lacks files of that name" in refusal("ours/tiny")


def test_a_full_disk_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(ResourceError, match=r"no space left in .*free some, or set HF_HOME"):
        located("ours/tiny")


def test_pickles_are_for_convert_alone(hub: Hub, published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "pickled"))
    torch.save(load_file(folder / "model.safetensors"), folder / BIN)
    (folder / "model.safetensors").unlink()
    hub.folders["ours/pickled"] = folder
    assert "`anyformer convert ours/pickled OUT` makes some" in refusal("ours/pickled")
    assert BIN not in hub.asked
    assert main(["convert", "ours/pickled", str(tmp_path / "out"), "--to", "hf"]) == 0
    assert hub.asked.count(BIN) == 1
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()


def test_a_run_knows_the_commit_that_it_began_with(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pinned("ours/tiny@v1") == f"hf:ours/tiny@{COMMIT}"
    assert pinned("ours/tiny/") == f"hf:ours/tiny@{COMMIT}" and pinned(str(tmp_path)) == str(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 40)
    recipe = {
        "model": {"load": "ours/tiny"},
        "data": {"kind": "text", "path": str(tmp_path / "text.txt")},
        "training": {"batch": 2, "length": 16},
        "budget": {"steps": 1},
    }
    hub.commit = OLDER
    assert main(["generate", "ours/tiny", "a", "--tokens", "1"]) == 0
    assert f"ours/tiny: commit {OLDER}" in capsys.readouterr().err
    af.train(recipe, tmp_path / "run")
    assert f'weights: "hf:ours/tiny@{OLDER}"' in (tmp_path / "run" / "recipe.yaml").read_text()


def test_the_environment_says_where(hub: Hub, tmp_path: Path) -> None:
    """In processes of their own: a cache is filled, then read without a network."""
    told = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url}
    code = "from anyformer.models.hub import located; print(located('ours/tiny'))"
    for more in ({}, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": closed_port()}):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **told, **more}, capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        assert Path(done.stdout.strip()) == tmp_path / "home" / "hub" / "models--ours--tiny" / "snapshots" / COMMIT
