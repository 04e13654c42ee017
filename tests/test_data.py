"""Text data: what is read, what is held out, what is kept, what a step sees, and what is refused."""

import errno
import gzip
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.core.errors import ConfigError, InputError, ResourceError
from anyformer.core.roles import Data
from anyformer.core.spec import DataSpec, from_dict
from anyformer.data import cache
from anyformer.data.base import TextData
from anyformer.data.batches import Batches, windows
from anyformer.data.corpus import Corpus, build
from anyformer.data.mixture import Mixture
from anyformer.data.python_docs import PythonDocs
from anyformer.data.sides import sides
from anyformer.data.split import split
from anyformer.data.text import Text
from anyformer.data.token_file import TokenFile, write_tokens
from anyformer.data.tokenizer import TextTokenizer
from anyformer.data.tokenizers.bpe import Bpe
from anyformer.data.tokenizers.bytes import Bytes
from anyformer.data.tokenizers.characters import Characters

BYTES = Bytes().train([], [])


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a current folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def data(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own."""
    folder = own_folders / "data"
    folder.mkdir()
    monkeypatch.setenv("ANYFORMER_DATA", str(folder))
    return folder


def text(**fields: object) -> Text:
    return from_dict(Data, {"kind": "text", **fields})


def documents_of(data: TextData) -> list[str]:
    return [row["text"] for row in data.rows()]


def token_file(folder: Path, documents: list[str], tokenizer: TextTokenizer = BYTES) -> TokenFile:
    write_tokens(folder, "some", documents, tokenizer)
    return TokenFile.open(folder, "some")


# Files


def test_files_and_folders_in_order(data: Path) -> None:
    (data / "b").mkdir()
    (data / "b" / "z.txt").write_text("five")
    (data / "b" / "a.md.gz").write_bytes(gzip.compress(b"four"))
    (data / "b" / "model.bin").write_bytes(b"\xff")
    (data / "b" / ".hidden.txt").write_text("no")
    (data / "b" / "empty.txt").write_text("")
    (data / "a.log").write_text("one--two----three")
    (Path("here.txt")).write_text("here")
    spec = text(path=["a.log", "b", "here.txt"], separator="--")
    assert documents_of(spec) == ["one", "two", "three", "four", "five", "here"]


def test_marks_line_ends_and_nuls(data: Path) -> None:
    (data / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\x00\n")
    assert documents_of(text(path="a.txt")) == ["one\r\ntwo\x00\n"]


def test_bytes_that_are_no_utf8(data: Path) -> None:
    (data / "a.txt").write_bytes(b"\xef\xbb\xbfab\xe4\xbdc")
    with pytest.raises(InputError, match=r"a\.txt: byte 5 \(0xe4\) is no UTF-8: .* data\.errors=replace"):
        documents_of(text(path="a.txt"))
    assert documents_of(text(path="a.txt", errors="replace")) == ["ab\ufffdc"]
    (data / "a.txt").write_bytes("ab".encode("utf-16"))
    with pytest.raises(InputError, match="looks like UTF-16"):
        documents_of(text(path="a.txt"))


def test_absent_files_say_what_they_are(data: Path) -> None:
    with pytest.raises(
        InputError, match=r"no s\.txt nor .*data/s\.txt \(Shakespeare, example\.org\): .*--set data\.path="
    ):
        build(text(path="s.txt", source="Shakespeare, example.org"), seed=0)
    with pytest.raises(InputError, match=r"no /nowhere/s\.txt: "):
        build(text(path="/nowhere/s.txt"), seed=0)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b" \n\n"])
def test_empty_files(data: Path, content: bytes) -> None:
    (data / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.txt: no text, only empty files or white space"):
        build(text(path="a.txt"), seed=0)


def test_folders_without_text(data: Path) -> None:
    (data / "a.bin").write_bytes(b"1")
    with pytest.raises(InputError, match=r"data holds no text: none of its files ends in \.txt"):
        build(text(path=str(data)), seed=0)


def test_what_cannot_be_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "a.txt").write_text("a")

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"a\.txt: cannot be read: Permission denied"):
        build(text(path="a.txt"), seed=0)


def test_what_is_no_file(data: Path) -> None:
    os.mkfifo(data / "pipe.txt")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        build(text(path="pipe.txt"), seed=0)
    with pytest.raises(InputError, match="holds no text"):
        build(text(path=str(data)), seed=0)
    with pytest.raises(InputError, match="cannot be read"):
        build(text(path="a\x00b"), seed=0)


@pytest.mark.parametrize("damage", [lambda packed: packed[:-9], lambda packed: b"no gzip", lambda packed: packed[:20]])
def test_damaged_archives(data: Path, damage) -> None:
    (data / "a.txt.gz").write_bytes(damage(gzip.compress(os.urandom(100).hex().encode())))
    with pytest.raises(InputError, match=r"a\.txt\.gz: cannot be read"):
        build(text(path="a.txt.gz"), seed=0)


def test_archives_made_to_fill_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyformer.data.reading.CHUNK", 1 << 12)
    (data / "a.txt.gz").write_bytes(gzip.compress(b"a" * (1 << 21)))
    with pytest.raises(InputError, match="more than 200 times its size"):
        build(text(path="a.txt.gz"), seed=0)


@pytest.mark.parametrize(
    "fields",
    [{"path": ""}, {"path": []}, {"path": "a", "separator": ""}, {"path": "a", "held_out": 1.5}, {"path": "a", "x": 1}],
)
def test_specs_that_mean_nothing(fields: dict) -> None:
    with pytest.raises(ValueError, match=r"path|separator|held_out|x"):
        text(**fields)


def test_specs_round_trip() -> None:
    spec = text(path=["a", "b"], tokenizer={"kind": "bpe", "vocabulary": 1000}, separator="\n\n")
    assert from_dict(Data, spec.to_dict()) == spec
    assert spec.path == ("a", "b")
    assert from_dict(Data, "python_docs") == PythonDocs()


def test_recipes_are_checked_without_heavy_imports() -> None:
    code = (
        "import sys; from anyformer.core.roles import Data; from anyformer.core.spec import from_dict;"
        "from_dict(Data, {'kind': 'text', 'path': 'a', 'tokenizer': 'bpe'}); from_dict(Data, 'python_docs');"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'torch', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


# Splits

DOCUMENTS = [f"document {number}" for number in range(40)]


def held_out(documents: list[str], fraction: float = 0.1, seed: int = 0) -> list[str]:
    return list(split(documents, fraction, seed).held_out(documents))


@given(st.permutations(DOCUMENTS), st.floats(0, 1))
def test_the_split_is_by_content(documents: list[str], fraction: float) -> None:
    parts = split(documents, fraction, seed=3)
    training, held = list(parts.training(documents)), list(parts.held_out(documents))
    assert sorted(training + held) == sorted(DOCUMENTS)
    assert set(held) == set(held_out(DOCUMENTS, fraction, seed=3))
    assert abs(len(held) - fraction * 40) <= 1
    assert bool(training) == (fraction < 1)
    assert bool(held) == (fraction > 0)


def test_the_split_depends_on_the_seed_and_on_nothing_else() -> None:
    assert held_out(DOCUMENTS) != held_out(DOCUMENTS, seed=1)
    assert held_out(DOCUMENTS) == ["document 3", "document 10", "document 23", "document 34"]  # on every machine


def test_copies_stay_together() -> None:
    documents = [*"abcdefgh" * 3]
    parts = split(documents, 0.5, seed=0)
    assert set(parts.training(documents)).isdisjoint(parts.held_out(documents))


def test_of_one_document_the_tail_is_held_out() -> None:
    one = "0123456789" * 10
    parts = split([one], 0.2, seed=0)
    assert list(parts.training([one])) == [one[:80]]
    assert list(parts.held_out([one])) == [one[80:]]
    assert held_out([one], 1.0) == [one]
    assert held_out([one], 0.0) == []
    assert held_out([one, one], 0.2) == [one[80:]] * 2


# Token files


@pytest.mark.parametrize("tokenizer", [BYTES, Bpe(vocabulary=300).train(DOCUMENTS, [])], ids=["bytes", "bpe"])
def test_token_files_hold_documents(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    documents = ["one", "zwei é", "\x00", "four"]
    file = token_file(tmp_path, documents, tokenizer)
    assert file.bytes == sum(len(document.encode()) for document in documents)
    assert file.tokens.dtype == np.uint16
    borders = [*file.starts, len(file)]
    cut = [file.tokens[a:b] for a, b in pairwise(borders)]
    assert [tokenizer.decode(ids) for ids in cut] == documents
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    assert all(list(ids[: len(begin)]) == begin for ids in cut)
    assert file.documents(np.arange(len(file))).tolist() == [n for n, ids in enumerate(cut) for _ in ids]
    assert file.bytes_per_token == file.bytes / len(file)


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    characters = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x14000)]))
    file = token_file(tmp_path, [characters], Characters().train([characters], []))
    assert file.tokens.dtype == np.uint32
    assert file.tokens[-1] == len(characters) - 1 > 1 << 16


def test_fingerprints_tell_data_apart(tmp_path: Path) -> None:
    prints = {token_file(tmp_path, documents).fingerprint for documents in (["ab", "c"], ["a", "bc"], ["abc"], ["abd"])}
    assert len(prints) == 4
    assert token_file(tmp_path, ["ab", "c"]).fingerprint in prints


# Corpora


def write(data: Path, content: str = "To be, or not to be: that is the question. " * 30) -> Text:
    (data / "a.txt").write_text(content)
    return text(path="a.txt")


def same(one: Corpus, other: Corpus) -> bool:
    pairs = [(one.train, other.train), (one.held_out, other.held_out)]
    return one.fingerprint == other.fingerprint and all(np.array_equal(a.tokens, b.tokens) for a, b in pairs)


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", {"kind": "bpe", "vocabulary": 280}])
def test_a_corpus(data: Path, tokenizer: object) -> None:
    write(data)
    spec = text(path="a.txt", tokenizer=tokenizer)
    corpus = build(spec, seed=0)
    whole = (data / "a.txt").read_text()
    parts = [corpus.tokenizer.decode(part.tokens) for part in (corpus.train, corpus.held_out)]
    assert "".join(parts) == whole
    assert len(parts[0]) == int(len(whole) * 0.9)
    assert corpus.train.bytes + corpus.held_out.bytes == len(whole.encode())
    assert same(build(spec, seed=0), corpus)
    assert same(build(spec, seed=0, tokenizer=corpus.tokenizer), corpus)  # as a run that goes on does


def test_changed_data_has_another_fingerprint(data: Path) -> None:
    first = build(write(data), seed=0)
    assert build(write(data, "To be, or not to bf " * 30), seed=0).fingerprint != first.fingerprint


def test_a_given_tokenizer_is_used_on_other_data(data: Path) -> None:
    tokenizer = build(text(path=str(data / "a.txt"), tokenizer="characters"), 0).tokenizer if write(data) else None
    (data / "b.txt").write_text("not a question")
    corpus = build(text(path="b.txt", held_out=1), seed=0, tokenizer=tokenizer)
    assert corpus.tokenizer is tokenizer
    assert (len(corpus.train), len(corpus.held_out)) == (0, 14)
    (data / "b.txt").write_text("{")
    with pytest.raises(InputError, match="none of the"):
        build(text(path="b.txt", held_out=1), seed=0, tokenizer=tokenizer)


def test_nothing_left_to_train_a_tokenizer_on(data: Path) -> None:
    write(data)
    with pytest.raises(InputError, match=r"lower data\.held_out"):
        build(text(path="a.txt", held_out=1), seed=0)


def test_one_token_over_and_over(data: Path) -> None:
    with pytest.warns(UserWarning, match="one token over and over"):
        build(write(data, "a" * 1000), seed=0)


def test_data_that_is_no_text() -> None:
    with pytest.raises(ValueError, match="DataSpec is no text"):
        build(DataSpec(), seed=0)


def test_python_docs() -> None:
    corpus = build(PythonDocs(tokenizer=Bpe(vocabulary=512)), seed=0)
    assert len(corpus.train.starts) > 50
    assert 5 <= len(corpus.held_out.starts) <= 12
    assert corpus.train.bytes + corpus.held_out.bytes > 300_000
    assert "statement" in corpus.tokenizer.decode(corpus.train.tokens[:20_000])


# The cache


def cached_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "cache").rglob("*") if path.is_file())


def test_what_is_cached_is_not_made_again(data: Path, own_folders: Path) -> None:
    build(write(data), seed=0)
    before = {path: path.stat().st_mtime_ns for path in cached_files(own_folders)}
    build(text(path="a.txt"), seed=0)
    assert {path: path.stat().st_mtime_ns for path in cached_files(own_folders)} == before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_damaged_caches_are_made_again(data: Path, own_folders: Path, damage) -> None:
    good = build(write(data), seed=0)
    for path in cached_files(own_folders):
        damage(path)
        assert same(build(text(path="a.txt"), seed=0), good), path
    assert not [path for path in (own_folders / "cache").rglob("*") if path.suffix in (".partial", ".damaged")]


def test_a_build_that_fails_leaves_nothing(own_folders: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise InputError("no")

    with pytest.raises(InputError):
        cache.cached("things", "key", fail)
    assert cached_files(own_folders) == []


def test_what_killed_processes_left_is_swept(own_folders: Path) -> None:
    parent = own_folders / "cache" / "anyformer" / "things"
    for name, age in (("old.partial", cache.ABANDONED + 60), ("new.partial", 0)):
        (parent / name).mkdir(parents=True)
        os.utime(parent / name, (time.time() - age, time.time() - age))
    cache.cached("things", "key", lambda folder: None)
    assert sorted(path.name for path in parent.iterdir()) == ["key", "new.partial"]


def test_two_builders_of_one_cache(own_folders: Path) -> None:
    def build_twice(folder: Path) -> None:
        (folder / "a").write_text("late")
        cache._kept(folder.parent, "key", build_once)

    def build_once(folder: Path) -> None:
        (folder / "a").write_text("early")

    folder = cache.cached("things", "key", build_twice)
    assert (folder / "a").read_text() == "early"  # who comes second takes what is there
    assert [path.name for path in folder.parent.iterdir()] == ["key"]


def test_two_processes_at_once(data: Path) -> None:
    write(data)
    code = (
        "from anyformer.data.corpus import build; from anyformer.data.text import Text;"
        "print(build(Text(path='a.txt'), seed=0).fingerprint)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    running = [subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) for _ in range(2)]
    prints = {process.communicate(timeout=60)[0].decode().strip() for process in running}
    assert prints == {build(text(path="a.txt"), seed=0).fingerprint}


def test_a_cache_that_cannot_be_written(data: Path, own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_folders / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_folders / "file"))  # no folder can be made in there
    corpus = build(write(data), seed=0)
    assert len(corpus.train) > 0
    assert str(own_folders / "file") not in str(corpus.train.tokens.filename)  # pyright: ignore


def test_no_space_left(own_folders: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceError, match="No space left on device: free some, or set XDG_CACHE_HOME"):
        cache.cached("things", "key", fill)
    assert cached_files(own_folders) == []


# Batches


def counting(tmp_path: Path, tokens: int, documents: int = 1) -> TokenFile:
    """A file whose token i is i."""
    characters = "".join(map(chr, range(0x100, 0x100 + tokens)))
    each = -(-tokens // documents)
    cut = [characters[at : at + each] for at in range(0, tokens, each)]
    return token_file(tmp_path, cut, Characters().train([characters], []))


def test_an_epoch_sees_every_window_once(tmp_path: Path) -> None:
    batches = Batches(counting(tmp_path, 1003), batch=4, length=10, seed=1)
    assert batches.windows == 99
    seen = np.concatenate([batches.at(step) for step in range(99)])  # 4 epochs
    assert seen.dtype == np.int64
    assert (np.diff(seen, axis=1) == 1).all()
    epochs = seen.reshape(4, 99, 11)
    offsets = {tuple(np.unique(epoch[:, 0] % 10)) for epoch in epochs}
    assert len(offsets) > 1
    for epoch in epochs:
        assert len(np.unique(epoch[:, :-1])) == 990  # no token is read twice
        assert (epoch[1:, 0] < epoch[:-1, 0]).any()  # nor in order
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_are_a_function_of_seed_and_step(tmp_path: Path) -> None:
    tokens = counting(tmp_path, 1003)
    batches, again = (Batches(tokens, batch=4, length=10, seed=1) for _ in range(2))
    later = [again.at(step) for step in (70, 3, 41)]
    assert all(np.array_equal(batches.at(step), ids) for step, ids in zip((70, 3, 41), later, strict=True))
    assert not np.array_equal(batches.at(0), Batches(tokens, batch=4, length=10, seed=2).at(0))
    # The same on every machine and with every numpy: a resumed run depends on it.
    assert batches.at(0)[:, 0].tolist() == [898, 778, 28, 658]
    ends = [Batches(tokens, batch=4, length=10, seed=seed).at(0) for seed in (-1, -2, 2**63, 2**63 + 1)]
    assert len({ids.tobytes() for ids in ends}) == 4


@pytest.mark.parametrize("tokens", [11, 12, 19, 20, 21, 22])
def test_texts_of_about_one_window(tmp_path: Path, tokens: int) -> None:
    batches = Batches(counting(tmp_path, tokens), batch=7, length=10, seed=0)
    seen = np.concatenate([batches.at(step) for step in range(20)])
    assert (np.diff(seen, axis=1) == 1).all()
    assert {seen.min(), seen.max()} == {0, tokens - 1}


def test_texts_shorter_than_one_window(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"10 tokens, and one window is 11: .* training\.length to at most 9"):
        Batches(counting(tmp_path, 10), batch=1, length=10, seed=0)
    with pytest.raises(ValueError, match=r"batch \(0\)"):
        Batches(counting(tmp_path, 20), batch=0, length=10, seed=0)


def test_one_line_is_enough_for_a_short_window(data: Path) -> None:
    corpus = build(write(data, "One line.\n"), seed=0)
    assert Batches(corpus.train, batch=2, length=4, seed=0).at(9).shape == (2, 5)


def test_documents_of_a_batch(tmp_path: Path) -> None:
    batches = Batches(counting(tmp_path, 100, documents=10), batch=3, length=16, seed=0)
    assert np.array_equal(batches.documents(5), batches.at(5) // 10)


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 5))
def test_windows_predict_every_token_once(tmp_path_factory, tokens: int, length: int, batch: int) -> None:
    file = counting(tmp_path_factory.mktemp("windows"), tokens) if tokens else None
    if file is None:
        return
    targets = []
    for ids, lengths in windows(file, length, batch):
        assert ids.shape == (len(lengths), length + 1)
        assert len(lengths) <= batch
        for row, real in zip(ids, lengths, strict=True):
            assert (np.diff(row[: real + 1]) == 1).all()
            assert (row[real + 1 :] == 0).all()
            targets += row[1 : real + 1].tolist()
    assert targets == list(range(1, tokens))


# Real text


@pytest.mark.needs_shared
def test_shakespeare(shared: Path) -> None:
    path = shared / "tinyshakespeare.txt"
    whole = path.read_text()
    assert len(whole) == 1_115_394
    for kind, vocabulary in (("characters", 65), ("bytes", 256)):
        corpus = build(text(path=str(path), tokenizer=kind), seed=0)
        assert corpus.tokenizer.vocabulary == vocabulary
        assert (len(corpus.train), len(corpus.held_out)) == (1_003_854, 111_540)
        ids = corpus.tokenizer.encode(whole)
        assert ids == [*corpus.train.tokens, *corpus.held_out.tokens]
    assert corpus.tokenizer.decode(ids) == whole


# Mixtures


def mixed(folder: Path, times: float, **fields: Any) -> Mixture:
    """Forty documents that are read once and forty that are read more often."""
    for name in ("rare", "often"):
        (folder / f"{name}.txt").write_text("\n".join(f"{name} {number}" for number in range(40)), "utf-8")
    rare, often = (
        {"data": {"kind": "text", "path": str(folder / f"{name}.txt"), "separator": "\n"}} for name in ("rare", "often")
    )
    return from_dict(Data, {"kind": "mixture", "shares": [rare, {**often, "times": times}], **fields})


def test_a_mixture_reads_some_rows_more_often_and_what_is_held_out_once(tmp_path: Path) -> None:
    data = mixed(tmp_path, 2.5, held_out=0.25)
    counts = Counter(row["text"] for row in data.rows())
    assert {counts[f"rare {number}"] for number in range(40)} == {1}
    often = Counter(counts[f"often {number}"] for number in range(40))
    assert often.keys() == {2, 3} and 10 <= often[2] <= 30  # half of them, as what they say decides
    parts = sides(data, seed=0)
    held = Counter(row["text"] for row in parts.rows("held_out"))
    assert set(held.values()) == {1} and len(held) == 20
    trained = Counter(row["text"] for row in parts.rows("train"))
    assert held.keys().isdisjoint(trained.keys())
    assert all(trained[text] == counts[text] for text in trained)
    assert build(data, 0).train.bytes == sum(len(text) * times for text, times in trained.items())


def test_a_mixture_says_itself_what_is_held_out(tmp_path: Path) -> None:
    own = {"kind": "text", "path": "a.txt", "held_out": 0.5}
    with pytest.raises(
        ConfigError, match=r"held_out \(0.5 .*\) of data inside of other data is not used: set data.held_out"
    ):
        list(from_dict(Data, {"kind": "mixture", "shares": [{"data": own}]}).rows())
    assert mixed(tmp_path, 1.0).elsewhere("new.txt").held_out == 1
