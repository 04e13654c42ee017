"""Every objective trains on real data: in some dozen steps it knows more than the frequencies of the answers say."""

import csv
import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tasks import BPE, STREAMS, TASKS, recipe_for, talk, toy_rows, write_rows
from test_training import same_ending, stop_after

from anyformer.recipes.read import read
from anyformer.training.loop import Trainer
from anyformer.training.train import prepared, train, untrained

Row = dict[str, Any]
SMALL = {"kind": "wordpiece", "vocabulary": 400}
COLOURS = ("white", "black", "red", "blue", "green", "yellow", "brown", "orange", "pink", "purple", "gray")


# Rows, made of captions in English and German and of movie reviews


def captions(shared: Path) -> Iterator[tuple[str, str]]:
    files = (shared / f"multi30k/train.{language}.gz" for language in ("en", "de"))
    english, german = (gzip.decompress(file.read_bytes()).decode().splitlines() for file in files)
    return zip(english, german, strict=True)


def translated(shared: Path) -> Iterator[Row]:
    return ({"source": english, "target": german} for english, german in captions(shared))


def answered(shared: Path) -> Iterator[Row]:
    return ({"messages": talk(caption)} for caption in captions(shared))


def paired(shared: Path) -> Iterator[Row]:
    return ({"text": english, "pair": german} for english, german in captions(shared))


def described(shared: Path) -> Iterator[Row]:
    return ({"text": english} for english, _ in captions(shared))


def counted(shared: Path) -> Iterator[Row]:
    """How many letters a word has, on average."""
    return ({"text": english, "value": len(english) / len(english.split())} for english, _ in captions(shared))


def capitalised(shared: Path) -> Iterator[Row]:
    """Whether a word of a German caption begins with a capital, as nouns do; the tokenizer takes capitals off."""
    for _, german in captions(shared):
        yield {"text": german, "tags": " ".join("noun" if word[0].isupper() else "other" for word in german.split())}


def coloured(shared: Path) -> Iterator[Row]:
    for english, _ in captions(shared):
        found = [word for word in re.findall(r"\w+", english) if word in COLOURS]
        if len(found) == 1 and english.count(found[0]) == 1:
            yield {"context": english, "question": "Which colour?", "answer": found[0]}


def reviewed(shared: Path) -> Iterator[Row]:
    with (shared / "sst2/train.tsv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield {"text": row["sentence"], "label": row["label"]}


def played(shared: Path) -> Iterator[Row]:
    speeches = (shared / "tinyshakespeare.txt").read_text("utf-8").split("\n\n")
    return ({"text": speech} for speech in speeches)


# What they are to beat


def frequencies(trainer: Trainer, target: str) -> float:
    """Nats a target when only its frequency is known, from all batches of training."""
    size = 1 + max(int(batch.tensors[target].max()) for batch in batches(trainer))
    counts = np.full(size, 0.1)
    for batch in batches(trainer):
        found = batch.tensors[target].numpy()
        counts += np.bincount(found[found >= 0], minlength=size)
    nats = -np.log(counts / counts.sum())
    held_out = [batch.tensors[target].numpy() for batch in exam(trainer)]
    return float(np.mean(np.concatenate([nats[found[found >= 0]] for found in held_out])))


def batches(trainer: Trainer) -> Iterator[Any]:
    return map(trainer.feed.at, range(40))


def exam(trainer: Trainer) -> Iterator[Any]:
    return trainer.objective.exam(trainer.corpus, trainer.model, trainer.recipe.training, None)


def mean_number(trainer: Trainer) -> float:
    mean = np.mean([batch.tensors["value"].numpy().mean() for batch in batches(trainer)])
    return float(np.mean(np.concatenate([(batch.tensors["value"].numpy() - mean) ** 2 for batch in exam(trainer)])))


def any_of_the_batch(trainer: Trainer) -> float:
    sizes = np.array([batch.count for batch in exam(trainer)])
    return float((sizes * np.log(sizes)).sum() / sizes.sum())


@dataclass(frozen=True)
class Lesson:
    """rows: of the data, of which `count` are trained on. beats, by: what the loss falls below, and by how much."""

    rows: Callable[[Path], Iterator[Row]]
    tokenizer: Any
    beats: Callable[[Trainer], float]
    by: float
    steps: int
    count: int = 600
    lr: float = 0.01
    model: dict[str, Any] = field(default_factory=dict)


def frequencies_of(target: str) -> Callable[[Trainer], float]:
    return partial(frequencies, target=target)


TARGETS = frequencies_of("targets")
LESSONS = {
    "next_token": Lesson(played, "bytes", TARGETS, 0.2, 120),
    "masked": Lesson(described, SMALL, TARGETS, 0.1, 160, 1500, 0.003),
    "whole_words": Lesson(described, SMALL, TARGETS, 0.1, 160, 1500, 0.003),
    "next_sentence": Lesson(described, SMALL, TARGETS, 0.05, 200, 1500, 0.003),
    "span_corruption": Lesson(played, BPE, TARGETS, 0.3, 80),
    "seq2seq": Lesson(translated, BPE, TARGETS, 0.4, 60),
    "classification": Lesson(
        reviewed, SMALL, frequencies_of("label"), 0.03, 400, 4000, 0.002, {"head": {"kind": "classify", "pool": "mean"}}
    ),
    "regression": Lesson(
        counted, SMALL, mean_number, 0.05, 160, 1500, 0.003, {"head": {"kind": "regress", "pool": "mean"}}
    ),
    "contrastive": Lesson(paired, SMALL, any_of_the_batch, 0.2, 160),
    "tagging": Lesson(capitalised, SMALL, TARGETS, 0.15, 60),
    "answering": Lesson(coloured, SMALL, frequencies_of("span"), 1.0, 40),
    "prompted": Lesson(translated, BPE, TARGETS, 0.4, 60),
    "prefix": Lesson(translated, BPE, TARGETS, 0.4, 60),
    "replies": Lesson(answered, BPE, TARGETS, 0.4, 60),
}
LEFT_OUT = {"replies": {"message"}, "answering": {"start"}, "regression": {"pair"}}  # columns that the rows do not have
STREAM = {"batch": 32, "length": 48}


def lesson_recipe(name: str, folder: Path, shared: Path) -> dict[str, Any]:
    lesson, task = LESSONS[name], TASKS[name]
    rows = lesson.rows(shared)
    paths = [
        write_rows(folder / f"{side}.jsonl", islice(rows, count)) for side, count in (("a", lesson.count), ("b", 100))
    ]
    columns = tuple(column for column in task.columns if column not in LEFT_OUT.get(name, ()))
    task = replace(task, tokenizer=lesson.tokenizer, columns=columns, model={**task.model, "width": 32, **lesson.model})
    return recipe_for(
        task,
        *paths,
        steps=lesson.steps,
        optimizer={"lr": lesson.lr},
        training=STREAM if name in STREAMS else {"batch": 16, "length": 400},
        evaluate={"every": lesson.steps},
        snapshots={"every": lesson.steps},
    )


def trainer_of(recipe: dict[str, Any]) -> Trainer:
    settled, corpus = prepared(read(recipe))
    return Trainer(settled, untrained(settled, corpus, "cpu"), corpus, lambda report: None)


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", LESSONS)
def test_training_beats_what_frequencies_say(name: str, shared: Path, tmp_path: Path) -> None:
    recipe = lesson_recipe(name, tmp_path, shared)
    to_beat = LESSONS[name].beats(trainer_of(recipe))
    done = train(recipe, tmp_path / "run")
    assert done.metrics["loss"] < to_beat - LESSONS[name].by
    assert done.metrics["loss"] > 0


# Resuming, and other ways to make a step


def toy_recipe(name: str, tmp_path: Path, **training: Any) -> dict[str, Any]:
    rows = [write_rows(tmp_path / f"{side}.jsonl", toy_rows(23, seed)) for seed, side in enumerate("ab")]
    training = {"batch": 4, **training, **({"length": 12} if name in STREAMS else {})}
    return recipe_for(TASKS[name], *rows, training=training)


@pytest.mark.parametrize("name", ["classification", "contrastive", "whole_words", "next_sentence", "span_corruption"])
@pytest.mark.parametrize("at", [4, 9])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(name: str, at: int, tmp_path: Path) -> None:
    recipe = toy_recipe(name, tmp_path, accumulate=2)
    recipe["model"] = {**recipe["model"], "dropout": 0.2}
    train(recipe, tmp_path / "whole")
    assert train(recipe, tmp_path / "halves", report=stop_after(at)).steps == at
    assert train(recipe, tmp_path / "halves", resume=True).steps == 10
    same_ending(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.parametrize("name", TASKS)
def test_checkpointing_changes_nothing_and_bfloat16_little(name: str, tmp_path: Path) -> None:
    ways: tuple[dict[str, Any], ...] = ({}, {"checkpointing": True}, {"precision": "bfloat16"})
    plain, again, rough = (trainer_of(toy_recipe(name, tmp_path, **way)) for way in ways)
    for _ in range(2):
        loss, same, near = (trainer.step()["loss"] for trainer in (plain, again, rough))
        assert loss == pytest.approx(same, abs=1e-6)
        assert loss == pytest.approx(near, abs=0.05)
        assert loss != near


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("next_sentence", "contrastive", "alone")])
def test_accumulating_equals_one_larger_batch(name: str, tmp_path: Path) -> None:
    """A mean over all that is asked, however it is spread; what compares the rows of a batch is left out."""
    parts, whole = (trainer_of(toy_recipe(name, tmp_path, **way)) for way in ({"accumulate": 2}, {}))
    two = [whole.feed.at(number) for number in (0, 1)]
    with torch.no_grad():
        loss = sum(float(whole.objective.loss(whole.model, batch.tensors)) for batch in two) / sum(b.count for b in two)
    assert parts.step()["loss"] == pytest.approx(loss, rel=1e-5)


def test_every_objective_is_learnt_here() -> None:
    from anyformer.training.objectives import TABLE

    guided = {"distillation", "preferences"}  # which look at a second model: test_guided.py
    assert {task.objective["kind"] for name, task in TASKS.items() if name in LESSONS} == {*TABLE} - guided
