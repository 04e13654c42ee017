"""`predict`: what every objective says of rows, in order, and what becomes of lines that cannot be read."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tasks import LABELS, ROWS, TASKS, recipe_for, toy_rows, write_rows
from test_objectives import Kit, asked_of_classes, asked_of_tags, kit_of

from anyformer import predict
from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.cli.main import main
from anyformer.core.errors import ConfigError, InputError
from anyformer.runs.folder import RunFolder
from anyformer.training.train import train

Row = dict[str, str]
Answer = dict[str, Any]
Runs = Callable[..., Path]


def run_of(name: str, tmp_path: Path, **sections: Any) -> Path:
    """A run of two steps."""
    paths = (write_rows(tmp_path / f"{side}.jsonl", toy_rows(20, seed)) for seed, side in enumerate(("a", "b")))
    return train(recipe_for(TASKS[name], *paths, steps=2, **sections), tmp_path / "run").path


# What is said, against a plain second form, a row at a time


def plain_class(kit: Kit, row: Row) -> Answer:
    [(logits, _)] = asked_of_classes(kit, {**row, "label": "no"})
    chances = np.exp(logits - logits.max())
    return {"label": LABELS[int(logits.argmax())], "probability": pytest.approx(chances.max() / chances.sum())}


def plain_tags(kit: Kit, row: Row) -> Answer:
    return {
        "words": row["text"].split(),
        "tags": [LABELS[int(logits.argmax())] for logits, _ in asked_of_tags(kit, row)],
    }


def plain_number(kit: Kit, row: Row) -> Answer:
    ids, given = kit.marked(row["text"], row["pair"])
    return {"value": pytest.approx(float(kit.said(ids, **given)[0]))}


def plain_vector(kit: Kit, row: Row) -> Answer:
    return {"vector": pytest.approx(kit.said(kit.marked(row["text"])[0]).tolist(), abs=1e-6)}


def plain_text(kit: Kit, row: Row) -> Answer:
    """Token after token, each time from the start; 50 more than were read."""
    begin, end = kit.special("<s>", "</s>")
    source, prompt, given = kit.tokenizer.encode(row["source"]), [begin], {}
    if isinstance(kit.model, EncoderDecoderModel):
        source = [*kit.corpus.tokenizers.of_source.encode(row["source"]), end]
        with torch.no_grad():
            given = {"sources": {"source": kit.model.encode(torch.tensor([source]))}}
    else:
        prompt = source = [begin, *source]
    written: list[int] = []
    while len(written) < len(source) + 50 and end not in written:
        ids = prompt + written
        if kit.model.labels:
            given = {"labels": {"prefix": torch.tensor([[int(at < len(prompt)) for at in range(len(ids))]])}}
        written.append(int(kit.said(ids, **given)[-1].argmax()))
    return {"text": kit.tokenizer.decode([token for token in written if token != end])}


def plain_reply(kit: Kit, row: Row) -> Answer:
    """What follows the message, a colon and a line break."""
    [end], written, prompt = kit.special("</s>"), [], kit.tokenizer.encode(f"{row['message']}:\n")
    while len(written) < 64 and end not in written:
        written.append(int(kit.said(prompt + written)[-1].argmax()))
    return {"text": kit.tokenizer.decode([token for token in written if token != end])}


SAYS: dict[str, Callable[[Kit, Row], Answer]] = {
    "classification": plain_class,
    "pairs": plain_class,
    "tagging": plain_tags,
    "regression": plain_number,
    "contrastive": plain_vector,
    "seq2seq": plain_text,
    "two_tokenizers": plain_text,
    "prompted": plain_text,
    "prefix": plain_text,
    "replies": plain_reply,
}
ASKS = {"text", "pair", "question", "context", "source", "message"}


@pytest.mark.parametrize("name", SAYS)
def test_rows_are_answered_together_as_they_are_alone(name: str, tmp_path: Path) -> None:
    greedy = {"objective": {"beams": 1}} if SAYS[name] is plain_text else {}
    kit = kit_of(name, tmp_path, **greedy)
    rows = kit.held_out[:5]
    columns = ASKS.intersection(kit.task.columns)  # no answer is given away
    asked = [{column: row[column] for column in columns} for row in rows]
    for answer, row in zip(kit.predicted(asked), rows, strict=True):
        assert answer == SAYS[name](kit, row)


def test_what_is_masked_is_guessed(tmp_path: Path) -> None:
    kit = kit_of("masked", tmp_path)
    [answer] = kit.predicted([{"text": "the [MASK] sat on [MASK] mat"}])
    start, separator, mask = kit.special("[CLS]", "[SEP]", "[MASK]")
    words = [kit.tokenizer.encode(word) for word in ("the", "sat", "on", "mat")]
    text = [*words[0], mask, *words[1], *words[2], mask, *words[3]]
    ids = [start, *text, separator]
    logits = kit.said(ids, labels={"segment": torch.zeros(1, len(ids), dtype=torch.long)})
    places = [place for place, token in enumerate(ids) if token == mask]
    assert len(answer["masks"]) == len(places) == 2
    for guesses, place in zip(answer["masks"], places, strict=True):
        chances = np.exp(logits[place] - logits[place].max())
        best = (-logits[place]).argsort()[:5]
        assert [guess["token"] for guess in guesses] == [kit.tokenizer.decode([token]) for token in best]
        assert [guess["probability"] for guess in guesses] == pytest.approx((chances / chances.sum())[best])
    filled = [int(logits[at].argmax()) if token == mask else token for at, token in enumerate(ids)]
    assert answer["text"] == kit.tokenizer.decode(filled)


# Bad lines: reported by number, and the rest done

TEXTS = [row["text"] for row in toy_rows(70, 8)]


def answered(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, list[Answer], str]:
    code = main(["predict", *map(str, words)])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_bad_lines_of_text(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("classification", tmp_path)
    good = predict(run, TEXTS)
    lines = [text.encode() for text in TEXTS]
    lines[3], lines[40], lines[41], lines[69] = b"", b"good \xe9\xff text", b" \t ", b"last \xff"
    bad = {3: "is empty", 40: "is no UTF-8 after 5 characters", 41: "is empty", 69: "is no UTF-8 after 5 characters"}
    wanted = [{"error": bad[at]} if at in bad else answer for at, answer in enumerate(good)]
    plain, packed = tmp_path / "lines.txt", tmp_path / "lines.txt.gz"
    plain.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    packed.write_bytes(gzip.compress(b"\n".join(lines)))
    stream = io.TextIOWrapper(io.BytesIO(b"\n".join(lines)), encoding="ascii")
    monkeypatch.setattr("sys.stdin", stream)
    for file, name in ((plain, str(plain)), (packed, str(packed)), ("-", "standard input")):
        code, answers, err = answered(capsys, run, file)
        assert code == InputError.exit_code == 3
        assert [answer.get("error") for answer in answers] == [answer.get("error") for answer in wanted]
        assert [answer.get("label") for answer in answers] == [answer.get("label") for answer in wanted]
        assert err.splitlines() == [
            *(f"warning: {name}, line {at + 1}: {what}" for at, what in bad.items()),
            "4 lines could not be read",
        ]
    code, answers, err = answered(capsys, run, plain, "--quiet")
    assert (code, len(answers), err.count("\n")) == (3, 70, 4)  # what is wrong is said to the quiet too


PAIR = {"text": "the cat", "pair": "a dog"}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "pairs",
            {
                '{"text": "a b"': "is no JSON: ",
                "[1]": "should be an object",
                '{"text": "a", "text": "b"}': "is no JSON: the key 'text' stands twice",
                '{"pair": "only"}': "the data has no column 'text'; it has: pair",
                '{"text": "  ", "pair": "a"}': "the column 'text' is empty",
                '{"text": "a", "pair": "\\ud83d"}': "half of a surrogate pair",
                '{"text": null, "pair": "b"}': "the data has no column 'text'",
                "": "is empty",
                json.dumps({**PAIR, "id": None, "tags": [1]}): "",
            },
        ),
        (
            "answering",
            {json.dumps({"question": "a"}): "no column 'context'", json.dumps({"context": "a"}): "'question'"},
        ),
        (
            "tagging",
            {json.dumps({"text": "a \u0001 b"}): "the tokenizer keeps nothing of the word '\\x01': take it out"},
        ),
        ("masked", {json.dumps({"text": "no mask"}): "there is no [MASK] in the text"}),
        ("seq2seq", {json.dumps({"text": "a"}): "no column 'source'"}),
        ("prompted", {json.dumps({"source": ""}): "the column 'source' is empty"}),
        ("regression", {json.dumps({"value": "3"}): "no column 'text'"}),
        ("contrastive", {json.dumps({}): "no column 'text'"}),
    ],
)
def test_bad_lines_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, lines: dict[str, str]
) -> None:
    run, file = run_of(name, tmp_path), tmp_path / "rows.jsonl"
    good = json.dumps({**toy_rows(1, 3)[0], **({"text": "a [MASK] sat"} if name == "masked" else {})})
    file.write_text("\n".join([good, *(line for bad in lines for line in (bad, good))]), "utf-8")
    code, answers, err = answered(capsys, run, file)
    assert code == 3
    for at, says in enumerate(lines.values()):
        error = answers[2 * at + 1].get("error", "")
        assert (says in error) if says else not error
        assert f"line {2 * at + 2}: {error}" in err or not error
    assert len({json.dumps(answer, sort_keys=True)[:60] for answer in answers[::2]}) == 1
    assert all("error" not in answer for answer in answers[::2])


def test_lines_longer_than_the_positions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learned = {"kind": "several", "schemes": ["segments", {"kind": "learned", "length": 14}]}
    long, file = " ".join(["the"] * 30), tmp_path / "rows.txt"
    file.write_text(f"the cat\n{long}\nthe dogs,\n")
    for name, says in (("tagging", "has 32 tokens, and the model's positions end at 14"), ("masked", "end at 14")):
        tmp_path.joinpath(name).mkdir()
        sections = {"model": {"position": learned}, "training": {"length": 14}}
        cut = {} if name == "masked" else {"objective": {"too_long": "cut"}}
        run = run_of(name, tmp_path / name, **sections, **cut)
        file.write_text(f"a [MASK] cat\n{long} [MASK]\nthe [MASK]\n" if name == "masked" else file.read_text())
        code, answers, _ = answered(capsys, run, file)
        if name == "masked":
            assert code == 3
            assert says in answers[1]["error"]
        else:  # words that were cut off have no tag
            assert code == 0
            assert answers[1]["words"] == ["the"] * 13 and len(answers[1]["tags"]) == 13


# From Python, and whole files that cannot be


def test_the_python_form_names_the_row(tmp_path: Path) -> None:
    run = run_of("classification", tmp_path)
    assert predict(run, []) == []
    assert predict(run, [{"text": "the cat"}]) == predict(run, ["the cat"]) == predict(run, iter(["the cat"]))
    for bad, says in (
        ({"pair": "x"}, "row 35: the data has no column 'text'; it has: pair"),
        ({"text": 5}, r"row 35: the column 'text' should be text; came 5 \(a whole number\)"),
        (" ", "row 35: the column 'text' is empty"),
        ("\ud83d", "row 35: character 0 of the text is U"),
    ):
        with pytest.raises(InputError, match=says):
            predict(run, [*TEXTS[:34], bad, *TEXTS[35:]])  # pyright: ignore
    with pytest.raises(ValueError, match="put it in a list"):
        predict(run, "the cat")


def test_files_and_runs_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = run_of("classification", tmp_path), tmp_path / "rows.txt"
    file.write_text("the cat\n")
    assert answered(capsys, run, tmp_path / "nowhere.txt")[::2] == (
        3,
        f"error: {tmp_path / 'nowhere.txt'}: cannot be read: No such file or directory\n",
    )
    assert answered(capsys, tmp_path / "no run", file)[0] == 3
    assert answered(capsys, run, file, "--set", "body.blocks.*.mixer.pattern=causal")[0] == 0
    assert answered(capsys, run, file, "--best")[0] == 0
    code, answers, err = answered(capsys, run, file, "--set", "body.nosuch=1")
    assert (code, answers) == (2, []) and "nosuch" in err


@pytest.mark.filterwarnings("default")  # it is shown, and not an error
def test_weights_that_are_no_numbers_answer_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = run_of("classification", tmp_path), tmp_path / "rows.txt"
    file.write_text("the cat\n")
    weights = RunFolder.open(run).weights()
    with RunFolder.resume(run) as folder:
        folder.write_weights({name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()})
    code, answers, err = answered(capsys, run, file)
    assert (code, answers) == (5, [])
    assert err.splitlines()[-1] == f"error: {file}, line 1: the answer is no number: the run's weights are no use"


@pytest.mark.parametrize("name", ["next_token", "span_corruption"])
def test_models_that_only_write_are_sent_to_generate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run, file = run_of(name, tmp_path, training={"length": 12}), tmp_path / "rows.txt"
    file.write_text("the cat\n")
    code, answers, err = answered(capsys, run, file)
    assert (code, answers) == (ConfigError.exit_code, [])
    assert "predicts no more than text: take `generate`" in err


def test_every_objective_on_rows_predicts() -> None:
    assert {*SAYS, "answering", "alone"} == {*ROWS}  # answering: the best of all spans, in test_objectives.py
