"""Rows as they come: tables, parallel texts, prompts and the hub; what is damaged is refused by its line."""

import csv
import dataclasses
import gzip
import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.extras import need
from anyformer.core.roles import Data
from anyformer.core.spec import from_dict
from anyformer.data import reading, records
from anyformer.data.corpus import build
from anyformer.data.hub import Hub
from anyformer.data.parallel import Parallel
from anyformer.data.prompts import Prompts, filled
from anyformer.data.python_docs import PythonDocs
from anyformer.data.reading import read_lines, read_text
from anyformer.data.table import Table
from anyformer.data.tokenizers.bpe import Bpe

SST = 'sentence\tlabel\n"it" is "fine" \t1\nso , so\t0\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    return tmp_path


def write(folder: Path, name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return name


def rows(**fields: Any) -> list[dict[str, str]]:
    return [dict(row) for row in Table(**fields).rows()]


# Tables


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "A.TSV.GZ".lower()])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tsv_has_no_quotes(folder: Path, name: str, mark: str, end: str) -> None:
    path = write(folder, name, mark + SST.replace("\n", end))
    assert rows(path=path) == [
        {"sentence": '"it" is "fine" ', "label": "1"},
        {"sentence": "so , so", "label": "0"},
    ]
    assert rows(path=path, columns={"text": "sentence"}) == [{"text": '"it" is "fine" '}, {"text": "so , so"}]


def test_csv_has_quotes(folder: Path) -> None:
    path = write(folder, "a.csv", 'text,label\n"a, ""b""\n\nc",1\r\n\nd,"2"\n')
    assert rows(path=path) == [{"text": 'a, "b"\n\nc', "label": "1"}, {"text": "d", "label": "2"}]


CELLS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1))
def test_what_is_written_as_csv_or_json_reads_back(tmp_path_factory: Any, cells: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    quoted = ["a,b", *(",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in pair) for pair in cells)]
    objects = [json.dumps({"a": a, "b": b}, ensure_ascii=len(a) % 2 == 0) for a, b in cells]
    for name, lines in (("x.csv", quoted), ("x.jsonl", objects)):
        write(folder, name, "\n".join(lines))
        assert rows(path=str(folder / name)) == [{"a": a, "b": b} for a, b in cells]


def test_files_without_a_header(folder: Path) -> None:
    path = write(folder, "a.csv", "1,good\n0,bad\n")
    assert rows(path=path, names=("label", "text")) == [{"label": "1", "text": "good"}, {"label": "0", "text": "bad"}]


def test_json_lines(folder: Path) -> None:
    path = write(folder, "a.jsonl", '{"text": "a\\u00e9\\n", "n": 1.50, "x": {"en": "b", "z.z": 7}, "l": [1]}\n \n')
    columns = {"text": "text", "label": "n", "source": "x.en", "target": "x.z.z"}
    assert rows(path=path, columns=columns) == [{"text": "aé\n", "label": "1.50", "source": "b", "target": "7"}]
    write(folder, "b.jsonl", '{"a": "1", "b": 2}\n{"b": 12345678901234567890123, "a": "x", "c": null}\n')
    assert rows(path="b.jsonl") == [{"a": "1", "b": "2"}, {"a": "x", "b": "12345678901234567890123"}]


def test_several_files_folders_and_formats(folder: Path) -> None:
    write(folder, "d/b.tsv", "a\tb\n1\t2\n")
    write(folder, "d/a.jsonl.gz", '{"b": 4, "a": 3}\n')
    write(folder, "d/notes.txt", "no table")
    write(folder, "c.txt", "a\tb\n5\t6\n")
    assert rows(path="d") == [{"b": "4", "a": "3"}, {"b": "2", "a": "1"}]
    assert rows(path="d", format="tsv") == [{"a": "1", "b": "2"}]
    assert rows(path=("c.txt", "d/b.tsv"), format="tsv") == [{"a": "5", "b": "6"}, {"a": "1", "b": "2"}]
    with pytest.raises(InputError, match=r"d holds no text: none of its files ends in \.csv, packed"):
        rows(path="d", format="csv")


TABLES: list[tuple[str, str | bytes, dict[str, Any], str]] = [
    ("a.tsv", SST, {"columns": {"text": "sentense"}}, r"a\.tsv, line 2: the column 'sentense' is not there; there are: "
     r"sentence, label; nearest: 'sentence'; .*--set data\.columns\.text=NAME"),
    ("a.tsv", "a\tb\n1\t2\n1\t2\t3\n", {}, r"a\.tsv, line 3: has 3 cells, and there are 2 columns \(a, b\): write a"),
    ("a.csv", "a,b\n1\n", {}, r"a\.csv, line 2: has 1 cells, .*: a cell with a comma, .* stands in quotes"),
    ("a.tsv", "a\tb\n\n1\t\n", {}, r"a\.tsv, line 3: the column 'b' is empty: take the row out"),
    ("a.tsv", "a\tb\n \t1\n", {}, r"a\.tsv, line 2: the column 'a' is empty"),
    ("a.tsv", "a\tb\ta\n", {}, r"a\.tsv, line 1: the column 'a' stands twice in the header: .*--set data\.names="),
    ("a.tsv", b"a\tb\n1\t\xff\n", {}, r"line 2: byte 2 of it \(0xff\) is no UTF-8: .*--set data\.errors=replace"),
    ("a.tsv", "a\tb\n".encode("utf-16"), {}, r"line 1: byte 0 of it \(0xff\) is no UTF-8, the file looks like UTF-16"),
    ("a.tsv", "", {}, r"a\.tsv: no row, only empty files or headers"),
    ("a.csv", "a,b\n", {}, r"a\.csv: no row, only empty files or headers"),
    ("a.jsonl", "\n", {}, r"a\.jsonl: no row"),
    ("a.csv", 'a,b\n"1"x,2\n', {}, r"a\.csv, line 2: is no CSV: ',' expected after '\"': a cell with"),
    ("a.csv", 'a,b\n1,"2\n3\n', {}, r"a\.csv, line 3: is no CSV: unexpected end of data"),
    ("a.csv", "a,b\n1,2\r3,4\n", {}, r"a\.csv, line 2: is no CSV: a carriage return inside of a row"),
    ("a.jsonl", '{"a": 1}\n["b"]\n', {}, r"a\.jsonl, line 2: should be an object such as .*; came \['b'\] \(a list\)"),
    ("a.jsonl", '{"a": 1}\n{"a": 1\n', {}, r"a\.jsonl, line 2: is no JSON: "),
    ("a.jsonl", "[" * 100_000, {}, r"a\.jsonl, line 1: is no JSON: maximum recursion depth"),
    ("a.jsonl", '{"a": 1, "a": 2}', {}, r"a\.jsonl, line 1: is no JSON: the key 'a' stands twice"),
    ("a.jsonl", '{"a": true}', {}, r"line 1: the column 'a' should be text or a number; came True \(true/false\)"),
    ("a.jsonl", '{"a": null}', {}, r"the column 'a' should be text or a number; came null"),
    ("a.jsonl", '{"a": ["b"]}', {}, r"the column 'a' should be text or a number; came \['b'\]"),
    ("a.jsonl", '{"a": NaN}', {}, r"the column 'a' should be text or a number; came nan"),
    ("a.jsonl", '{"a": "\\ud800"}', {}, r"the column 'a' holds half of a surrogate pair"),
    ("a.jsonl", '{"a": 1}\n{"b": 1}', {}, r"a\.jsonl, line 2: the column 'a' is not there; there are: b; "),
    ("a.jsonl", '{"a": {"b": 1}}', {"columns": {"text": "a.c"}}, r"the column 'a\.c' is not there; there are: b"),
    ("a.txt", "a\n1\n", {}, r"a\.txt: its name does not end in \.tsv, \.csv or \.jsonl: .*--set data\.format=tsv"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "fields", "says"), TABLES)
def test_damaged_tables(folder: Path, name: str, content: str | bytes, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        rows(path=write(folder, name, content), **fields)
    assert "\n" not in str(error.value)


def test_names_for_what_has_names(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.jsonl: objects have names of their own"):
        rows(path=write(folder, "a.jsonl", '{"a": 1}'), names=("b",))
    with pytest.raises(ValueError, match=r"names \(a, a\) must differ"):
        Table(path="a.tsv", names=("a", "a"))


def test_bytes_that_are_no_utf8_are_replaced_on_demand(folder: Path) -> None:
    path = write(folder, "a.tsv", b"a\tb\n1\t\xff\xfe\n")
    assert rows(path=path, errors="replace") == [{"a": "1", "b": "\ufffd\ufffd"}]


def test_a_file_is_never_held_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come while the file is read: what is damaged further down is not met before."""
    path = write(folder, "a.tsv.gz", "a\tb\n" + "1\t2\n" * 100_000 + "3\n")
    assert len([*islice(Table(path=path).rows(), 99_999)]) == 99_999
    monkeypatch.setattr(Path, "read_bytes", None)
    monkeypatch.setattr(gzip, "decompress", None)
    assert next(Table(path=path).rows()) == {"a": "1", "b": "2"}


def test_lines_and_cells_that_never_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reading, records):
        monkeypatch.setattr(module, "LONGEST", 200_000)
    before = csv.field_size_limit(131_072)  # Python's own, which other tests have raised
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: longer than 200000 bytes, which no line of text is"):
        rows(path=write(folder, "a.jsonl", '{"a": "' + "b" * 200_000))
    assert len(rows(path=write(folder, "b.csv", "a\n" + "b" * 150_000))[0]["a"]) == 150_000
    with pytest.raises(InputError, match=r"c\.csv, line \d+: is no CSV: field larger than field limit \(200000\)"):
        rows(path=write(folder, "c.csv", 'a\n"' + "b\n" * 150_000))
    csv.field_size_limit(before)


def test_archives_made_to_fill_a_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 1 << 12)
    path = write(folder, "a.tsv.gz", "a\n" + "1\n" * (1 << 20))
    with pytest.raises(InputError, match="more than 200 times its size"):
        rows(path=path)


@pytest.mark.parametrize("damage", [lambda packed: packed[:-9], lambda packed: b"no gzip", lambda packed: packed[:20]])
def test_damaged_archives(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    (folder / "a.tsv.gz").write_bytes(damage(gzip.compress(SST.encode())))
    with pytest.raises(InputError, match=r"a\.tsv\.gz: cannot be read"):
        rows(path="a.tsv.gz")


@given(st.text(st.sampled_from("a\u00e9\n\r\x0b\x0c\x1c\x85\u2028\ufeff\U0001f600")), st.booleans())
def test_lines_are_the_text(tmp_path_factory: Any, text: str, packed: bool) -> None:
    folder = tmp_path_factory.mktemp("lines")
    file = folder / write(folder, "a.txt.gz" if packed else "a.txt", text)
    lines = [*read_lines(file)]
    assert "".join(lines) == read_text(file) == text.removeprefix("\ufeff")
    assert all(line.find("\n") in (-1, len(line) - 1) for line in lines)


def test_held_out_files(folder: Path) -> None:
    path, other = write(folder, "a.tsv", SST), write(folder, "b.tsv", "sentence\tlabel\nno\t0\n")
    table = Table(path=path, validation_path=other, tokenizer=Bpe(vocabulary=300))
    assert [dict(row) for row in table.validation() or ()] == [{"sentence": "no", "label": "0"}]
    assert Table(path=path).validation() is None
    there = table.elsewhere("b.tsv")
    assert there == Table(path="b.tsv", held_out=1.0, tokenizer=Bpe(vocabulary=300))
    with pytest.raises(InputError, match=r"no c\.tsv nor .*--set data\.validation_path="):
        list(dataclasses.replace(table, validation_path="c.tsv").validation() or ())


def test_json_lines_are_texts_to_learn_a_language_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    texts = [f"document {number}" for number in range(20)]
    path = write(folder, "a.jsonl.gz", "\n".join(json.dumps({"content": text, "id": 1}) for text in texts))
    corpus = build(Table(path=path, columns={"text": "content"}, tokenizer=Bpe(vocabulary=300)), seed=0)
    sides = [corpus.tokenizer.decode(side.tokens, special=True) for side in (corpus.train, corpus.held_out)]
    assert {text for side in sides for text in side.split("<|endoftext|>") if text} == {*texts}


def test_what_it_is_and_where_it_is_published(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no a\.tsv nor .*a\.tsv \(reviews, at example\.org\): put it there"):
        rows(path="a.tsv", source="reviews, at example.org")


@pytest.mark.parametrize(
    "spec",
    [
        Table(path=("a", "b"), columns={"text": "c"}, names=("x", "c"), validation_path="d"),
        Parallel(path=("a", "b"), validation_path=("c", "d"), source_tokenizer=Bpe(), empty="skip"),
        Prompts(inner=Table(path="a"), source="{text}?", target="{label}"),
        Hub(name="a/b", config="c", split="train[:10%]", validation_split="test", columns={"text": "sentence"}),
    ],
)
def test_specs_round_trip(spec: Any) -> None:
    assert from_dict(Data, json.loads(json.dumps(spec.to_dict()))) == spec


# Parallel texts


def test_parallel_texts(folder: Path) -> None:
    pair = (write(folder, "a.en.gz", "one\u2028\r\n two\n"), write(folder, "a.de", "eins\nzwei"))
    found = [{"source": "one\u2028", "target": "eins"}, {"source": " two", "target": "zwei"}]
    assert [*Parallel(path=pair).rows()] == found
    assert Parallel(path=pair).validation() is None
    assert [*(Parallel(path=("x", "y"), validation_path=pair).validation() or ())] == found
    assert Parallel(path=("x", "y"), validation_path=pair).elsewhere("a.en.gz, a.de") == Parallel(
        path=pair, held_out=1.0
    )
    with pytest.raises(ConfigError, match=r"'a\.en\.gz' should name two files with a comma between"):
        Parallel(path=pair).elsewhere("a.en.gz")


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("a\nb\nc\n", "x\n", r"a\.en has 3 lines and .*a\.de has 1: they should be aligned"),
        ("a\n", "x\ny", r"a\.en has 1 lines and .*a\.de has 2: "),
        ("a\n\nc\n", "x\ny\nz\n", r"a\.en, line 2: is empty: .*--set data\.empty=skip"),
        ("a\nb\n", "x\n \t\n", r"a\.de, line 2: is empty"),
        ("", "", r"a\.en and .*a\.de: no row"),
        ("a\n", b"\xff\n", r"a\.de, line 1: byte 0 of it \(0xff\) is no UTF-8"),
    ],
)
def test_texts_that_are_not_parallel(folder: Path, source: str, target: str | bytes, says: str) -> None:
    pair = write(folder, "a.en", source), write(folder, "a.de", target)
    with pytest.raises(InputError, match=says):
        list(Parallel(path=pair).rows())


def test_empty_lines_are_left_out_on_demand(folder: Path) -> None:
    pair = write(folder, "a.en", "a\n\n\nd\n"), write(folder, "a.de", "w\nx\n\nz\n")
    found = [{"source": "a", "target": "w"}, {"source": "d", "target": "z"}]
    assert [*Parallel(path=pair, empty="skip").rows()] == found
    with pytest.raises(InputError, match="no row"):
        list(Parallel(path=(pair[0], write(folder, "b.de", "\n\n\n\n")), empty="skip").rows())


def test_a_side_that_is_not_there(folder: Path) -> None:
    path = write(folder, "a.en", "a")
    with pytest.raises(InputError, match=r"no a\.de nor .*--set data\.path\.1="):
        list(Parallel(path=(path, "a.de")).rows())
    (folder / "d").mkdir()
    with pytest.raises(InputError, match=r"d is a folder: name one file for the sources .*data\.path\.0"):
        list(Parallel(path=("d", path)).rows())


# Prompts


def test_prompts(folder: Path) -> None:
    inner = Table(path=write(folder, "a.tsv", SST), validation_path=write(folder, "b.tsv", "sentence\tlabel\n{x}\t0\n"))
    prompts = Prompts(inner=inner, source="{{sst2}} {sentence}: {label}{label}", target="{label}")
    assert [*prompts.rows()][1] == {"source": "{sst2} so , so: 00", "target": "0"}
    assert [*(prompts.validation() or ())] == [{"source": "{sst2} {x}: 00", "target": "0"}]  # a text is no template
    assert prompts.elsewhere("b.tsv") == Prompts(
        inner=Table(path="b.tsv"), source=prompts.source, target="{label}", held_out=1.0
    )
    assert [*prompts.elsewhere("b.tsv").rows()] == [*(prompts.validation() or ())]
    assert Prompts(inner=PythonDocs(), target="{text}").validation() is None


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{text", "should hold columns such as"),
        ("text}", "should hold columns"),
        ("{}", "should hold columns"),
        ("{text.upper}", "should hold columns"),
        ("{text!r}", "should hold columns"),
        ("{text:>9}", "should hold columns"),
        ("{text[0]}", "should hold columns"),
        ("{{text}}", "names no column"),
        ("", "names no column"),
    ],
)
def test_templates_that_mean_nothing(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Prompts(inner=PythonDocs(), source=template)


def test_prompts_of_columns_that_are_not_there(folder: Path) -> None:
    inner = Table(path=write(folder, "a.tsv", SST))
    with pytest.raises(InputError, match=r"no column 'source'; it has: sentence, label"):
        list(Prompts(inner=inner).rows())


@pytest.mark.parametrize("field", [{"tokenizer": Bpe()}, {"held_out": 0.5}, {"source_tokenizer": Bpe()}])
def test_what_is_said_inside_of_prompts_and_not_used(field: dict[str, Any]) -> None:
    (name,) = field
    with pytest.raises(ConfigError, match=rf"{name} \(.*\) of data inside of other data is not used: set data\.{name}"):
        Prompts(inner=Table(path="a", **field)).rows()


@given(st.dictionaries(st.from_regex(r"\A[a-z]{1,3}\Z"), st.text(), min_size=1))
def test_a_template_is_filled_once(row: dict[str, str]) -> None:
    assert filled("".join(f"{{{name}}}|{{{{{name}}}}}|" for name in row), row) == "".join(
        f"{text}|{{{name}}}|" for name, text in row.items()
    )


# The hub: there is no network here, so that a package stands in for `datasets`, the only place where one does. Its
# load_dataset takes what the real one takes and gives rows as that does; it refuses anything else.

STAND_IN = """
__version__ = "4.1.0"
ROWS = {
    ("some/set", None, "train"): [{"sentence": "a", "label": 1, "score": 0.5}],
    ("some/set", None, "test"): [{"sentence": "c", "label": 0, "score": 1.0}],
    ("some/set", "de-en", "train"): [{"translation": {"de": "x", "en": "y"}}],
    ("some/set", None, "bad"): [{"sentence": "a"}, {"sentence": None}],
    ("some/set", None, "none"): [],
}

def load_dataset(path, name=None, *, split):
    if (path, name, split) not in ROWS:
        raise ValueError(f"Unknown split {split!r}.\\nShould be one of ['train', 'test'].")
    return ROWS[path, name, split]
"""


@pytest.fixture
def datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "packages").mkdir()
    (folder / "packages" / "datasets.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(folder / "packages"))
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    yield folder / "packages" / "datasets.py"
    sys.modules.pop("datasets", None)


def test_the_hub(datasets: Path) -> None:
    hub = Hub(name="some/set", validation_split="test")
    assert next(iter(hub.rows())) == {"sentence": "a", "label": "1", "score": "0.5"}
    assert [*(hub.validation() or ())] == [{"sentence": "c", "label": "0", "score": "1.0"}]
    assert Hub(name="some/set").validation() is None
    pairs = Hub(name="some/set", config="de-en", columns={"source": "translation.de", "target": "translation.en"})
    assert [*pairs.rows()] == [{"source": "x", "target": "y"}]
    assert pairs.elsewhere("a.jsonl") == Table(path="a.jsonl", columns=pairs.columns, held_out=1.0)


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ("dev", r"some/set: the split 'dev' cannot be loaded: Unknown split 'dev'\. Should be one of"),
        ("bad", r"some/set, bad, row 2: the column 'sentence' should be text or a number; came null"),
        ("none", r"some/set has no row in 'none'"),
    ],
)
def test_what_the_hub_does_not_have(datasets: Path, split: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        list(Hub(name="some/set", split=split).rows())
    assert "\n" not in str(error.value)


def test_a_package_that_could_run_code_from_the_hub_is_refused(datasets: Path) -> None:
    datasets.write_text(STAND_IN.replace("4.1.0", "3.6.0"))
    with pytest.raises(ConfigError, match=r"datasets 3\.6\.0 can run code .* pip install -U 'anyformer\[datasets\]'"):
        list(Hub(name="some/set").rows())


def test_an_extra_that_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"datasets is not installed; try: pip install 'anyformer\[datasets\]'"):
        list(Hub(name="some/set").rows())
    (folder / "lacking.py").write_text("import what_it_lacks")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModuleNotFoundError, match="what_it_lacks"):
        need("lacking", extra="some")


# As published


@pytest.mark.needs_shared
def test_sst2(shared: Path) -> None:
    table = Table(path=str(shared / "sst2/dev.tsv"), columns={"text": "sentence", "label": "label"})
    found = [*table.rows()]
    assert len(found) == 872
    assert found[0] == {"text": "it 's a charming and often affecting journey . ", "label": "1"}
    assert {row["label"] for row in found} == {"0", "1"}


@pytest.mark.needs_shared
def test_multi30k(shared: Path) -> None:
    pair = str(shared / "multi30k/val.de.gz"), str(shared / "multi30k/val.en.gz")
    found = [*Parallel(path=pair).rows()]
    assert len(found) == 1014
    assert found[0]["source"] == "Eine Gruppe von Männern lädt Baumwolle auf einen Lastwagen"
    assert found[0]["target"] == "A group of men are loading cotton onto a truck"
    with pytest.raises(InputError, match=r"val\.de\.gz has 1014 lines and .*test_2016_flickr\.en\.gz has 1000"):
        list(Parallel(path=(pair[0], str(shared / "multi30k/test_2016_flickr.en.gz"))).rows())
