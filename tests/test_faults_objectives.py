"""What can go wrong with rows and what is asked of a model: one clear line, the right code, nothing left behind."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tasks import BPE, LABELS, ROWS, TASKS, block, decoder, encoder, recipe_for, stack, toy_rows, translator, write_rows
from test_faults_training import refused, written

from anyformer.cli.main import main
from anyformer.core.errors import InputError, NumericalStop
from anyformer.runs.folder import RunFolder
from anyformer.training.evaluate import evaluate
from anyformer.training.train import train

Row = dict[str, str]


def files(tmp_path: Path, train_rows: Iterable[Row] | None = None, held_out: Iterable[Row] | None = None) -> list[Path]:
    """The rows of both sides."""
    rows = (toy_rows(20, 1) if train_rows is None else train_rows, toy_rows(5, 2) if held_out is None else held_out)
    return [write_rows(tmp_path / f"{name}.jsonl", some) for name, some in zip(("train", "held"), rows, strict=True)]


def says_no(capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: dict[str, Any], code: int, says: str) -> None:
    """`train` refuses the recipe with this code, in one line, and leaves no run."""
    came, line = refused(capsys, "train", written(tmp_path / "recipe.yaml", recipe), "--out", tmp_path / "run")
    assert re.search(says, line), line
    assert came == code
    assert not (tmp_path / "run").exists()


# Models that cannot be asked this

FULL = translator() | {"decoder": stack(block("full", cross={"kind": "cross", "heads": 2}))}
TIGHT = {"position": {"kind": "learned", "length": 12}}
DENSE = {"objective": {"mean": 1.0}, "training": {"length": 12}}
CLASSES: dict[str, Any] = {"kind": "tag", "labels": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "changes", "sections", "says"),
    [
        ("next_token", {}, {"model": {"head": CLASSES}}, "next_token needs a head that says every token.* a TagHead"),
        ("masked", {"model": {**encoder("tied"), "head": None}}, {}, "masked needs a head that says .* this is none"),
        ("masked", {"tokenizer": "bytes"}, {}, "masked needs a tokenizer with a mask token"),
        ("next_sentence", {"model": encoder("masked")}, {}, "next_sentence needs a model with the head pretraining"),
        ("span_corruption", {"model": decoder()}, {}, "needs a model of the kind encoder_decoder; this is a Decoder"),
        ("span_corruption", {"model": FULL}, {}, "span_corruption predicts each token from those before it"),
        ("span_corruption", {}, {"model": {"vocabulary": 300}}, r"vocabulary \(300\) is smaller than .* sentinels"),
        ("span_corruption", {}, {"model": TIGHT, **DENSE}, "tell 12 tokens apart, and a sequence may have 13"),
        ("span_corruption", {}, {"model": {"source_position": TIGHT["position"]}}, "tell 12 tokens apart"),
        ("seq2seq", {"model": decoder()}, {}, "seq2seq needs a model of the kind encoder_decoder"),
        ("seq2seq", {"model": FULL}, {}, "seq2seq predicts each token from those before it.*'full'"),
        ("seq2seq", {}, {"model": {"source_vocabulary": 5}}, r"model.source_vocabulary \(5\) is smaller than"),
        ("two_tokenizers", {"model": translator()}, {}, "two tokenizers need two tables .*source_embedding=tokens"),
        ("classification", {"model": encoder("tied")}, {}, "needs a model with the head classify"),
        ("classification", {"model": translator()}, {}, "of the kind encoder or decoder, not EncoderDecoder"),
        ("classification", {}, {"model": {"vocabulary": 5}}, r"model.vocabulary \(5\) is smaller than the tokenizer's"),
        ("classification", {}, {"training": {"batch": 0}}, "training.batch"),
        ("tagging", {"model": encoder("classify")}, {}, "needs a model with the head tag"),
        ("regression", {"model": encoder({"kind": "regress", "outputs": 2})}, {}, "the head regress, and one output"),
        ("contrastive", {"model": encoder("regress")}, {}, "contrastive needs a model with the head sentence"),
        ("contrastive", {}, {"training": {"batch": 1}}, "a batch of 1 is too small: .* at least 2"),
        ("answering", {"model": encoder("tied")}, {}, "answering needs a model with the head span"),
        ("prompted", {"model": decoder("full")}, {}, "prompted predicts each token from those before it"),
        ("prompted", {"model": decoder(head=CLASSES)}, {}, "prompted needs a head that says every token"),
    ],
)
def test_models_that_cannot_be_asked_this(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    changes: dict[str, Any],
    sections: dict[str, Any],
    says: str,
) -> None:
    recipe = recipe_for(replace(TASKS[name], **changes), *files(tmp_path), **sections)
    says_no(capsys, tmp_path, recipe, 2, says)


# Rows that cannot be


def changed(at: int, **columns: str) -> Callable[[list[Row]], list[Row]]:
    """The rows with other columns in one of them."""
    return lambda rows: [row | columns if number == at else row for number, row in enumerate(rows, 1)]


def without(column: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [{name: text for name, text in row.items() if name != column} for row in rows]


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("tagging", changed(4, tags="yes"), "row 4: [2-9] words, but 1 tags"),
        ("regression", changed(4, value="ten"), "row 4: the column 'value' holds 'ten', which is no number"),
        ("regression", changed(4, value="1e300"), "row 4: the column 'value' holds '1e300'"),
        ("regression", changed(4, value="nan"), "row 4: the column 'value' holds 'nan'"),
        ("answering", changed(4, answer="zebra"), "row 4: the answer 'zebra' does not stand in the context"),
        ("classification", changed(4, text=" "), "line 4: .*'text' is empty"),
        ("classification", changed(4, text="the " * 90), r"row 4 has 92 tokens; .* allow 64, and 1 of the rows have"),
        ("contrastive", changed(4, pair="the " * 90), r"row 4 has 92 tokens"),
        ("classification", without("label"), "the column 'label' is not there; there are: text,"),
        ("masked", without("text"), "the column 'text' is not there"),
        ("classification", lambda rows: [], "train.jsonl: no row"),
        ("seq2seq", changed(4, target=""), "line 4: .*'target' is empty"),
        ("prompted", changed(4, source="the " * 90), r"row 4 has \d+ tokens"),
    ],
)
def test_rows_that_cannot_be(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Callable[[list[Row]], list[Row]],
    says: str,
) -> None:
    recipe = recipe_for(TASKS[name], *files(tmp_path, change(toy_rows(20, 1))))
    says_no(capsys, tmp_path, recipe, 3, says)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (
            "classification",
            {"label": "never"},
            "row 2 of the held-out rows: the label 'never' is not among .* no, perhaps, yes",
        ),
        ("tagging", {"text": "a b", "tags": "no never"}, "row 2 of the held-out rows: the label 'never' is not among"),
        ("seq2seq", {"source": "the " * 90}, r"row 2 of the held-out rows has \d+ tokens; .* and 1 of the rows of the"),
    ],
)
def test_held_out_rows_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change: Row, says: str
) -> None:
    recipe = recipe_for(TASKS[name], *files(tmp_path, held_out=changed(2, **change)(toy_rows(5, 2))))
    says_no(capsys, tmp_path, recipe, 3, says)


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", BPE])
def test_a_column_that_is_nowhere_is_named_whatever_the_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: Any
) -> None:
    rows = files(tmp_path, *([{"sentence": row["text"], "label": row["label"]} for row in toy_rows(9, 1)],) * 2)
    recipe = recipe_for(replace(TASKS["classification"], tokenizer=tokenizer, data={"columns": {}}), *rows)
    says_no(
        capsys, tmp_path, recipe, 3, "the data has no column 'text'; it has: sentence, label; .*columns.text=sentence"
    )


def test_a_ragged_row_and_files_of_different_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in toy_rows(9, 1))]
    lines[5] += "\tmore"
    (tmp_path / "rows.tsv").write_text("\n".join(lines) + "\n")
    recipe = recipe_for(TASKS["classification"], tmp_path / "rows.tsv", tmp_path / "rows.tsv")
    says_no(capsys, tmp_path, recipe, 3, "rows.tsv, line 6: has 3 cells, and there are 2 columns")
    sides = [tmp_path / f"{name}.txt" for name in ("source", "target")]
    for path, count in zip(sides, (9, 8), strict=True):
        path.write_text("the cat\n" * count)
    recipe = recipe_for(TASKS["seq2seq"], *sides)
    recipe["data"] = {"kind": "parallel", "path": [str(path) for path in sides], "tokenizer": BPE}
    says_no(capsys, tmp_path, recipe, 3, "has 9 lines and .* has 8: they should be aligned")


def test_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alike = [row | {"label": "no"} for row in toy_rows(9, 1)]
    recipe = recipe_for(TASKS["classification"], *files(tmp_path, alike, alike))
    says_no(capsys, tmp_path, recipe, 3, "all rows have the same label, no: at least two classes are needed")


def test_no_end_to_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("seq2seq", "prompted", "span_corruption"):
        recipe = recipe_for(replace(TASKS[name], tokenizer="bytes"), *files(tmp_path), training={"length": 12})
        says_no(capsys, tmp_path, recipe, 3, "the tokenizer has no end token, .* take bpe, unigram or wordpiece")


# Few rows, or none


@pytest.mark.parametrize("name", ROWS)
def test_a_batch_of_one(tmp_path: Path, name: str) -> None:
    """Asked for, or since there is no more; what compares rows needs two."""
    task, rows = ROWS[name], toy_rows(20, 4)
    compares, classes = task.objective["kind"] == "contrastive", {"label", "tags"}.intersection(task.columns)
    known = {"head": {**task.model["head"], "labels": [*LABELS]}} if classes else {}
    paths = files(tmp_path, rows[: 2 if compares else 3], rows[:1])
    recipe = recipe_for(task, *paths, steps=2, training={"batch": 2 if compares else 1}, model=known)
    done = train(recipe, tmp_path / "run")
    assert done.steps == 2
    assert evaluate(done.path).counts.get("rows", 1) == 1


@pytest.mark.parametrize(
    ("held_out", "says"),
    [(0.1, "is one row, over and over, which cannot be divided"), (1, "all of the text is held out"), (0, "")],
)
def test_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str], held_out: float, says: str) -> None:
    """It is trained on where nothing is held out, and measured where all is; it cannot be divided."""
    recipe = recipe_for(TASKS["regression"], *files(tmp_path, toy_rows(1, 1)), training={"batch": 2})
    recipe["data"] |= {"validation_path": None, "held_out": held_out}
    if says:
        says_no(capsys, tmp_path, recipe, 3, says)
        return
    done = train(recipe, tmp_path / "run")
    assert done.metrics == {}
    with pytest.raises(InputError, match="no row is held out, so nothing can be measured"):
        evaluate(done.path)
    assert evaluate(done.path, str(tmp_path / "train.jsonl")).counts == {"rows": 1}


def test_other_rows_are_measured_with_the_classes_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(recipe_for(TASKS["classification"], *files(tmp_path), steps=1), tmp_path / "run").path
    other = write_rows(tmp_path / "other.jsonl", [{"text": "the cat", "label": "yes"}])
    assert main(["evaluate", str(run), "--data", str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["intervals"]) == (1, {})
    write_rows(other, [{"text": "the cat", "label": "never"}])
    code, line = refused(capsys, "evaluate", run, "--data", other)
    assert code == 3
    assert "row 1 of the held-out rows: the label 'never' is not among" in line


# A loss that is no number


def test_a_loss_that_is_no_number_names_its_rows_and_the_last_good_snapshot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = changed(13, value="3e38")(toy_rows(40, 1))  # whose square is no number of 32 bits
    recipe = recipe_for(TASKS["regression"], *files(tmp_path, rows), snapshots={"every": 1}, seed=2)
    path, run = written(tmp_path / "recipe.yaml", recipe), tmp_path / "run"
    code, line = refused(capsys, "train", path, "--out", run)
    assert code == NumericalStop.exit_code == 5
    found = re.search(
        r"step (\d+): the loss is inf; .*its batch is of the rows ([\d, ]+); the last snapshot is of step", line
    )
    assert found, line
    step = int(found[1])
    assert 1 < step < 9
    assert "13" in found[2].split(", ") and len(found[2].split(", ")) == 5
    assert line.endswith(f"is of step {step - 1}; try a lower optimizer.lr or training.clip\n")
    snapshot = RunFolder.open(run).latest_snapshot()
    assert snapshot is not None and snapshot.step == step - 1
    assert all(tensor.isfinite().all() for tensor in snapshot.tensors.values())
    assert all(tensor.isfinite().all() for tensor in RunFolder.open(run).weights().values())
    assert refused(capsys, "train", path, "--out", run, "--resume")[0] == 5  # the same rows do the same harm


def test_rows_of_all_objectives_are_named(tmp_path: Path) -> None:
    """What `origin` says is what the batch holds."""
    from test_objectives import kit_of

    kit = kit_of("classification", tmp_path, training={"batch": 12})
    batch, words = kit.feed.at(3), kit.feed.origin(3)
    assert words.startswith("the rows ") and words.endswith(" and 4 more")
    named = [int(number) for number in re.findall(r"\d+", words)[:-1]]
    texts = {kit.tokenizer.decode(ids) for ids in batch.tensors["ids"].numpy()}
    assert len(named) == 8
    assert {kit.tokenizer.decode(kit.marked(kit.train[number - 1]["text"])[0]) for number in named} <= texts
