"""Objectives: what each asks of the model, and that its loss is what a plain loop over rows makes of the answers.

The second implementations know no batches and no padding: a row is one call, a probability one softmax in NumPy.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, lgamma, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tasks import BPE, LABELS, ROWS, STREAMS, TASKS, WORDPIECE, WORDS, Task, recipe_for, toy_rows, write_rows
from torch import nn

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.errors import InputError
from anyformer.core.model import Model
from anyformer.data.tokenizer import TextTokenizer
from anyformer.recipes.read import read
from anyformer.recipes.schema import Recipe
from anyformer.training.measure import measure
from anyformer.training.objectives.base import Batch, Coder, Feed
from anyformer.training.objectives.masked import Masked, word_starts
from anyformer.training.objectives.rows import Rows
from anyformer.training.objectives.span_corruption import spans
from anyformer.training.objectives.streams import Window
from anyformer.training.train import prepared, untrained

Floats = NDArray[np.float64]
Asked = list[tuple[Floats, int]]  # the logits of all answers, and the right one
BATCH = 5


def exactly(number: float) -> Any:
    return pytest.approx(number, rel=1e-12, abs=1e-10)


@dataclass(frozen=True)
class Kit:
    """A task made ready: a model in float64 with large weights, and the rows as they were written."""

    task: Task
    recipe: Recipe
    corpus: Any
    model: Model
    train: list[dict[str, str]]
    held_out: list[dict[str, str]]

    @property
    def objective(self) -> Any:
        return self.recipe.objective

    @property
    def tokenizer(self) -> TextTokenizer:
        return self.corpus.tokenizer

    @property
    def feed(self) -> Feed:
        return self.objective.feed(self.corpus, self.model, self.recipe.training, self.recipe.seed)

    def exam(self) -> list[Batch]:
        return list(self.objective.exam(self.corpus, self.model, self.recipe.training, None))

    def measured(self) -> dict[str, float]:
        return measure(self.objective, self.model, self.corpus, self.recipe.training).metrics

    @torch.no_grad()
    def predicted(self, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
        return self.objective.predicted(self.model, rows, Coder(self.corpus.tokenizers, self.corpus.classes))

    def loss(self, batch: Batch) -> float:
        with torch.no_grad():
            return float(self.objective.loss(self.model, batch.tensors))

    @torch.no_grad()
    def said(self, ids: list[int], **given: Any) -> Floats:
        """What the model makes of one row."""
        return self.model(torch.tensor([ids]), **given)[0].numpy()

    def special(self, *names: str) -> list[int]:
        """The ids of special tokens."""
        found = [self.tokenizer.plain.token_to_id(name) for name in names]
        assert None not in found
        return found  # pyright: ignore

    def marked(self, *texts: str) -> tuple[list[int], dict[str, Any]]:
        """[CLS] a [SEP] b [SEP], and the segments."""
        start, separator = self.special("[CLS]", "[SEP]")
        ids, segments = [start], [0]
        for number, text in enumerate(texts):
            part = [*self.tokenizer.encode(text), separator]
            ids, segments = ids + part, segments + [number] * len(part)
        return ids, {"labels": {"segment": torch.tensor([segments])}}


def kit_of(name: str, tmp_path: Path, **sections: Any) -> Kit:
    train, held_out = toy_rows(37, 1), toy_rows(11, 2)
    paths = (write_rows(tmp_path / "train.jsonl", train), write_rows(tmp_path / "held out.jsonl", held_out))
    tree = recipe_for(TASKS[name], *paths, **{"training": {"batch": BATCH}, **sections})
    recipe, corpus = prepared(read(tree))
    model = untrained(recipe, corpus, "cpu").double()
    for number, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(number))
    return Kit(TASKS[name], recipe, corpus, model.eval(), train, held_out)


# Rows: what each objective asks, a row at a time


def asked_of_classes(kit: Kit, row: dict[str, str]) -> Asked:
    ids, given = kit.marked(*(row[name] for name in ("text", "pair") if name in kit.task.columns))
    return [(kit.said(ids, **given), LABELS.index(row["label"]))]


def asked_of_tags(kit: Kit, row: dict[str, str]) -> Asked:
    ids, given = kit.marked(row["text"])
    logits, place, asked = kit.said(ids, **given), 1, []
    for word, tag in zip(row["text"].split(), row["tags"].split(), strict=True):
        asked.append((logits[place], LABELS.index(tag)))
        place += len(kit.tokenizer.encode(word))
    return asked


def asked_of_spans(kit: Kit, row: dict[str, str]) -> Asked:
    ids, given = kit.marked(row["question"], row["context"])
    logits, first = kit.said(ids, **given), 2 + len(kit.tokenizer.encode(row["question"]))
    begin, at, inside = int(row["start"]), 0, []
    for place in range(first, len(ids) - 1):
        piece = (kit.tokenizer.plain.id_to_token(ids[place]) or "").removeprefix("##")
        at = row["context"].index(piece, at)
        if at < begin + len(row["answer"]) and at + len(piece) > begin:
            inside.append(place)
        at += len(piece)
    return [(logits[:, 0], inside[0]), (logits[:, 1], inside[-1])]


def asked_of_targets(kit: Kit, row: dict[str, str]) -> Asked:
    """The target and </s> after <s>, by an encoder that read the source and </s>."""
    assert isinstance(kit.model, EncoderDecoderModel)
    source, (begin, end) = kit.corpus.tokenizers.of_source, kit.special("<s>", "</s>")
    target = [begin, *kit.tokenizer.encode(row["target"]), end]
    with torch.no_grad():
        read = kit.model.encode(torch.tensor([[*source.encode(row["source"]), source.plain.token_to_id("</s>")]]))
    return list(zip(kit.said(target[:-1], sources={"source": read}), target[1:], strict=True))


def asked_of_prompts(kit: Kit, row: dict[str, str]) -> Asked:
    """<s> prompt target </s>: the target and </s>."""
    begin, end = kit.special("<s>", "</s>")
    prompt = [begin, *kit.tokenizer.encode(row["source"])]
    target = [*kit.tokenizer.encode(row["target"]), end]
    ids = prompt + target[:-1]
    prefix = torch.tensor([[int(place < len(prompt)) for place in range(len(ids))]])
    logits = kit.said(ids, labels={"prefix": prefix} if kit.model.labels else None)
    return list(zip(logits[len(prompt) - 1 :], target, strict=True))


def asked_of_replies(kit: Kit, row: dict[str, str]) -> Asked:
    """What is answered, and </s> after it, given all before."""
    [end], ids, asked = kit.special("</s>"), [], []
    for message in json.loads(row["messages"]):
        if message["role"] == "user":
            ids += kit.tokenizer.encode(f"{message['content']}:\n")
        else:
            asked += range(len(ids), len(ids) + len(kit.tokenizer.encode(message["content"])) + 1)
            ids += [*kit.tokenizer.encode(message["content"]), end]
    logits = kit.said(ids[:-1])
    return [(logits[at - 1], ids[at]) for at in asked]


def asked_of_pairs(kit: Kit, rows: list[dict[str, str]]) -> Asked:
    """Each text is to find its pair among those of all rows."""
    texts = [kit.said(kit.marked(row["text"])[0]) for row in rows]
    pairs = [kit.said(kit.marked(row["pair" if "pair" in kit.task.columns else "text"])[0]) for row in rows]
    cosines = [[a @ b / (a @ a * (b @ b)) ** 0.5 for b in pairs] for a in texts]
    return [(np.array(row) / 0.7, number) for number, row in enumerate(cosines)]


ASKED: dict[str, Callable[[Kit, dict[str, str]], Asked]] = {
    "seq2seq": asked_of_targets,
    "two_tokenizers": asked_of_targets,
    "classification": asked_of_classes,
    "pairs": asked_of_classes,
    "tagging": asked_of_tags,
    "answering": asked_of_spans,
    "prompted": asked_of_prompts,
    "prefix": asked_of_prompts,
    "replies": asked_of_replies,
}


def asked(kit: Kit, name: str, rows: list[dict[str, str]]) -> Asked:
    """All that is asked of some rows of a batch."""
    if name in ("contrastive", "alone"):
        return asked_of_pairs(kit, rows)
    return [one for row in rows for one in ASKED[name](kit, row)]


def nats(asked: Asked, smoothing: float = 0.0) -> float:
    """The sum of (1 - e) * -log p(right) - e * mean(log p)."""
    total = 0.0
    for logits, right in asked:
        each = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits
        total += (1 - smoothing) * float(each[right]) + smoothing * float(each.mean())
    return total


def share_right(asked: Asked) -> float:
    return float(np.mean([int(logits.argmax()) == right for logits, right in asked]))


CLASSIC = [name for name in ROWS if name != "regression"]


@pytest.mark.parametrize("name", CLASSIC)
def test_the_loss_of_a_batch_is_that_of_its_rows_one_by_one(name: str, tmp_path: Path) -> None:
    kit = kit_of(name, tmp_path)
    feed = kit.feed
    assert isinstance(feed, Rows)
    ragged = False
    for number in (0, 3, 9):  # 9 is of the second epoch
        batch, rows = feed.at(number), [kit.train[at] for at in feed.buckets.at(number)]
        questions = asked(kit, name, rows)
        each = 0.5 if name == "answering" else 1.0  # the mean of both ends
        wanted = each * nats(questions, getattr(kit.objective, "smoothing", 0.0))
        assert kit.loss(batch) == exactly(wanted)
        assert batch.count == each * len(questions)
        ragged |= any(key.endswith("lengths") for key in batch.tensors) or name == "replies"  # which needs no mask
    assert ragged


@pytest.mark.parametrize("name", CLASSIC)
def test_what_is_measured_is_the_mean_over_all_rows(name: str, tmp_path: Path) -> None:
    kit = kit_of(name, tmp_path)
    rows, metrics = kit.held_out, kit.measured()
    if name in ("contrastive", "alone"):  # pairs are told apart within their batch, and those are by length
        columns = ("text", kit.task.columns[-1])
        rows = sorted(rows, key=lambda row: sum(len(kit.marked(row[column])[0]) for column in columns))
    questions = [one for at in range(0, 11, BATCH) for one in asked(kit, name, rows[at : at + BATCH])]
    assert metrics["loss"] == exactly(nats(questions) / len(questions))
    if "perplexity" in metrics:
        assert metrics["perplexity"] == pytest.approx(exp(metrics["loss"]), rel=1e-10)
    if "accuracy" in metrics:
        assert metrics["accuracy"] == pytest.approx(share_right(questions), abs=1e-12)


def test_numbers_are_compared_with_a_squared_error(tmp_path: Path) -> None:
    kit = kit_of("regression", tmp_path)
    feed = kit.feed
    assert isinstance(feed, Rows)

    def answers(rows: list[dict[str, str]]) -> Floats:
        said = [kit.said(ids, **given)[0] for ids, given in (kit.marked(row["text"], row["pair"]) for row in rows)]
        return np.array([said, [np.float32(row["value"]) for row in rows]], dtype=np.float64)

    for number in (0, 9):
        x, y = answers([kit.train[at] for at in feed.buckets.at(number)])
        assert kit.loss(feed.at(number)) == exactly(float(((x - y) ** 2).sum()))
    (x, y), metrics = answers(kit.held_out), kit.measured()
    assert metrics["loss"] == exactly(((x - y) ** 2).mean())
    assert metrics["mean_error"] == exactly(abs(x - y).mean())
    assert metrics["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-10)


# Streams: windows of text


def asked_of_windows(kit: Kit, batch: Batch) -> Asked:
    """What has a target, of rows without their padding."""
    tensors = batch.tensors
    lengths = tensors.get("lengths", torch.full((len(tensors["ids"]),), tensors["ids"].shape[1]))
    asked: Asked = []
    for row, (ids, targets, length) in enumerate(zip(tensors["ids"], tensors["targets"], lengths, strict=True)):
        given: dict[str, Any] = {}
        size = int((targets != -100).nonzero().max()) + 1 if "source" in tensors else int(length)
        if "source" in tensors:
            assert isinstance(kit.model, EncoderDecoderModel)
            with torch.no_grad():
                read = kit.model.encode(tensors["source"][row : row + 1, : tensors["source_lengths"][row]])
            given = {"sources": {"source": read}}
        elif kit.model.labels:
            given = {"labels": {"segment": tensors["segment"][row : row + 1, :size]}}
        logits = kit.said(ids[:size].tolist(), **given)
        asked += [(logits[at], int(target)) for at, target in enumerate(targets[:size]) if target != -100]
    return asked


def asked_of_halves(kit: Kit, batch: Batch) -> Asked:
    """Whether each row's halves belong together, of rows without their padding."""
    head, asked, tensors = kit.model.head, [], batch.tensors
    pair: Any = head.pair  # pyright: ignore
    lengths = tensors.get("lengths", torch.full((len(tensors["ids"]),), tensors["ids"].shape[1]))
    for row, (length, other) in enumerate(zip(lengths.tolist(), tensors["other"].tolist(), strict=True)):
        ids, segment = (tensors[name][row : row + 1, :length] for name in ("ids", "segment"))
        with torch.no_grad():
            asked.append((kit.model.read(ids, pair, labels={"segment": segment})[0].numpy(), other))
    return asked


@pytest.mark.parametrize("name", STREAMS)
def test_the_loss_of_windows_is_that_of_their_tokens_one_by_one(name: str, tmp_path: Path) -> None:
    kit = kit_of(name, tmp_path, training={"batch": BATCH, "length": 23})
    feed = kit.feed
    for batch in (feed.at(0), feed.at(8), kit.exam()[-1]):
        questions = asked_of_windows(kit, batch)
        wanted = nats(questions)
        if name == "next_sentence":
            halves = asked_of_halves(kit, batch)
            wanted += nats(halves) / len(halves) * len(questions)
        assert batch.count == len(questions)
        assert kit.loss(batch) == exactly(wanted)
    metrics, exam = kit.measured(), kit.exam()
    questions = [one for batch in exam for one in asked_of_windows(kit, batch)]
    assert metrics["loss"] == exactly(nats(questions) / len(questions))
    assert metrics["perplexity"] == pytest.approx(exp(metrics["loss"]), rel=1e-10)
    if name == "next_sentence":
        halves = [one for batch in exam for one in asked_of_halves(kit, batch)]
        assert metrics["next_sentence_loss"] == exactly(nats(halves) / len(halves))
    if name == "next_token":
        size = len("".join(row["text"] for row in kit.held_out).encode())
        assert metrics["bits_per_byte"] == pytest.approx(nats(questions) / log(2) / size, rel=1e-10)


# What is arranged: masks


def bounds(tries: int, chance: float) -> tuple[int, int]:
    """Between which numbers of successes all but one in a million experiments lie, from the binomial law itself."""
    hits = np.arange(tries + 1)
    ways = lgamma(tries + 1) - np.array([lgamma(hit + 1) + lgamma(tries - hit + 1) for hit in hits])
    below = np.exp(ways + hits * log(chance) + (tries - hits) * log(1 - chance)).cumsum()
    return int(np.searchsorted(below, 5e-7)), int(np.searchsorted(below, 1 - 5e-7))


def likely(hits: int, tries: int, chance: float) -> bool:
    low, high = bounds(tries, chance)
    return low <= hits <= high


def windows(kit: Kit, rows: int, length: int, marks: float = 0.1) -> Window:
    """Rows of all lengths of any tokens, with a few marks of documents among them."""
    draw = np.random.default_rng(5)
    ids = draw.integers(5, kit.tokenizer.vocabulary, (rows, length + 1))
    ids = np.where(draw.random(ids.shape) < marks, draw.choice(kit.special("[CLS]", "[SEP]"), ids.shape), ids)
    return Window(ids, draw.integers(1, length + 1, rows), np.zeros_like(ids))


def arranged(objective: Any, window: Window, kit: Kit, seed: int = 7) -> dict[str, NDArray[np.int64]]:
    """A batch, with `real`: where there are tokens."""
    batch = objective.arranged(window, kit.corpus, kit.model, np.random.default_rng(seed))
    arrays = {name: tensor.numpy() for name, tensor in batch.tensors.items()}
    lengths = arrays.get("lengths", np.full(len(window.ids), arrays["ids"].shape[1]))
    assert batch.tokens == lengths.sum()
    return arrays | {"real": np.arange(arrays["ids"].shape[1]) < lengths[:, None]}


def test_masks_are_as_many_and_as_random_as_bert_s(tmp_path: Path) -> None:
    kit = kit_of("masked", tmp_path)
    start, separator, mask = kit.special("[CLS]", "[SEP]", "[MASK]")
    window, size = windows(kit, 3000, 30, marks=0.02), kit.tokenizer.vocabulary
    batch = arranged(Masked(share=0.5), window, kit)
    chosen, hits, texts = batch["targets"] != -100, np.zeros(30), 0
    for at, (row, length) in enumerate(zip(window.ids, window.lengths, strict=True)):
        before = np.array([start, *row[: min(length, 28)], separator])
        text = ~np.isin(before, [start, separator])
        real, picked = batch["real"][at], chosen[at]
        assert real.sum() == len(before)
        assert not (picked[real] & ~text).any() and not picked[~real].any()
        assert picked.sum() == (max(1, round(0.5 * text.sum())) if text.any() else 0)
        np.testing.assert_array_equal(batch["targets"][at][picked], before[picked[real]])
        np.testing.assert_array_equal(batch["ids"][at][real & ~picked], before[~picked[real]])
        if length >= 28 and text.all(where=np.arange(30) % 29 > 0):  # all alike: each place is as likely as any other
            hits, texts = hits + picked, texts + 1
    now, was, count = batch["ids"][chosen], batch["targets"][chosen], int(chosen.sum())
    assert likely(int((now == mask).sum()), count, 0.8 + 0.1 / size)
    assert likely(int((now == was).sum()), count, 0.1 + 0.1 / size)
    others = np.bincount(now[(now != mask) & (now != was)], minlength=size)
    assert others[mask] == 0
    for token in {*range(size)} - {mask}:  # those that are never the target are a little likelier
        assert likely(int(others[token]), int(others.sum()), 1 / (size - 1.5))
    assert texts > 100
    assert all(likely(int(hit), texts, 14 / 28) for hit in hits[1:29])
    assert not hits[[0, 29]].any()


@pytest.mark.parametrize("next_sentence", [False, True])
def test_words_are_hidden_whole(tmp_path: Path, next_sentence: bool) -> None:
    kit = kit_of("next_sentence", tmp_path)
    window = windows(kit, 400, 24)
    batch = arranged(Masked(share=0.3, whole_words=True, next_sentence=next_sentence), window, kit)
    longest = 0
    for ids, targets, real in zip(batch["ids"], batch["targets"], batch["real"], strict=True):
        words: list[list[bool]] = []
        before = np.where(targets == -100, ids, targets)[real]
        fixed = np.isin(before, kit.special("[CLS]", "[SEP]"))
        for at, token in enumerate(before):
            piece = kit.tokenizer.plain.id_to_token(int(token)) or ""
            if fixed[at]:
                continue
            if not piece.startswith("##") or fixed[at - 1]:
                words.append([])
            words[-1].append(bool(targets[at] != -100))
        assert all(len({*word}) == 1 for word in words)
        hidden, left = (sorted(len(word) for word in words if word[0] == picked) for picked in (True, False))
        longest, over = max([longest, *hidden]), round(0.3 * (~fixed).sum()) - sum(hidden)
        assert over >= 0 or len(hidden) == 1  # a word of each row, and no more than the share
        assert over <= 0 or all(size > over for size in left)  # what could have been chosen was
    assert longest > 3


@pytest.mark.parametrize(
    ("kind", "more"),
    [({**BPE, "vocabulary": 275}, "🙂 x7"), ({"kind": "unigram", "vocabulary": 400}, "x7"), (WORDPIECE, "🙂")],
    ids=["bpe", "unigram", "wordpiece"],
)
def test_the_tokens_that_begin_a_word_are_known(tmp_path: Path, kind: dict[str, Any], more: str) -> None:
    tokenizer = kit_of("regression", tmp_path, data={"tokenizer": kind}).tokenizer
    starts, inside = word_starts(tokenizer), 0
    words = f"a the Montréal café unbelievable running {more}".split()
    for first, *others in tokenizer.encode_words(words)[1:]:  # what begins a text has no space before it
        assert starts[first]
        assert not starts[others].any()
        inside += len(others)
    assert inside > 5


def test_next_sentences_are_the_next_in_half_of_the_rows(tmp_path: Path) -> None:
    kit, others = kit_of("next_sentence", tmp_path), 0
    start, separator = kit.special("[CLS]", "[SEP]")
    every = windows(kit, 600, 40, marks=0)
    for seed, part in enumerate(np.split(np.arange(600), 150)):
        window = Window(every.ids[part], every.lengths[part], every.documents[part])
        batch = arranged(Masked(next_sentence=True), window, kit, seed)
        texts = [row[: min(size, 37)].tolist() for row, size in zip(window.ids, window.lengths, strict=True)]
        others += int(batch["other"].sum())
        for at, text in enumerate(texts):
            real = batch["real"][at]
            ids = np.where(batch["targets"][at] == -100, batch["ids"][at], batch["targets"][at])[real].tolist()
            border = ids.index(separator)
            first, second = ids[1:border], ids[border + 1 : -1]
            assert (ids[0], ids[-1]) == (start, separator)
            assert batch["segment"][at][real].tolist() == [0] * (border + 1) + [1] * (len(second) + 1)
            assert len(text) // 4 <= len(first) <= 3 * len(text) // 4
            if batch["other"][at]:
                assert first == text[: len(first)]
                assert any(second == other[-len(second) :] for number, other in enumerate(texts) if number != at)
                assert 0 < len(second) <= len(text) - len(first)
            else:
                assert first + second == text
    assert likely(others, 600, 0.5)
    alone = Window(every.ids[:1], every.lengths[:1], every.documents[:1])
    assert not any(arranged(Masked(next_sentence=True), alone, kit, seed)["other"].any() for seed in range(9))


# What is arranged: spans that are left out


@pytest.mark.parametrize(("share", "mean"), [(0.15, 3.0), (0.5, 1.0), (0.9, 2.5), (0.01, 9.0)])
def test_spans_are_as_many_as_t5_s_and_give_the_text_back(tmp_path: Path, share: float, mean: float) -> None:
    """Raffel et al. 2020, appendix of their code: random_spans_noise_mask."""
    kit = kit_of("span_corruption", tmp_path, objective={"share": share, "mean": mean, "sentinels": 40})
    begin, end = kit.special("<s>", "</s>")
    draw, size = np.random.default_rng(0), kit.tokenizer.vocabulary
    ids, lengths = draw.integers(4, size, (50, 65)), np.arange(15, 65)
    batch = kit.objective.arranged(Window(ids, lengths, ids), kit.corpus, kit.model, draw).tensors
    for at, length in enumerate(lengths.tolist()):
        source = batch["source"][at, : batch["source_lengths"][at]].tolist()
        target = batch["targets"][at][batch["targets"][at] != -100].tolist()
        assert batch["ids"][at, : len(target)].tolist() == [begin, *target[:-1]]
        assert source.pop() == target.pop() == end
        noise = min(max(int(np.round(length * share)), 1), length - 1)
        spans = min(max(int(np.round(noise / mean)), 1), noise, length - noise, 40)
        marks = [token for token in source if token >= size]
        assert marks == [token for token in target if token >= size] == [size + 39 - k for k in range(spans)]
        assert len(target) - spans == noise and len(source) - spans == length - noise
        assert source[0] < size and target[0] == size + 39
        borders = [target.index(mark) for mark in marks] + [len(target)]
        gaps = {mark: target[borders[k] + 1 : borders[k + 1]] for k, mark in enumerate(marks)}
        assert all(gaps.values())
        assert [token for mark in source for token in gaps.get(mark, [mark])] == ids[at, :length].tolist()
    longest = max(batch["source"].shape[1], batch["ids"].shape[1])
    assert longest == kit.objective.longest(64)


def test_every_way_to_leave_spans_out_is_as_likely_as_any_other() -> None:
    draw = np.random.default_rng(1)
    seen = Counter("".join("-x"[int(hidden)] for hidden in spans(11, 0.45, 2.5, 100, draw)) for _ in range(4000))
    assert len(seen) == 4 * 5  # 5 in 2 spans, 6 in 2 texts
    assert all(likely(hits, 4000, 1 / 20) for hits in seen.values())
    assert spans(1, 0.5, 3.0, 9, draw).tolist() == [False]


# Answers in a text


def inside(kit: Kit, question: str, context: str) -> tuple[Any, range]:
    """The logits of a start and of an end, and the places of the context."""
    ids, given = kit.marked(question, context)
    return kit.said(ids, **given), range(2 + len(kit.tokenizer.encode(question)), len(ids) - 1)


def best_span(logits: Floats, context: range, longest: int) -> tuple[int, int]:
    """By trying all of them; (0, 0) is that there is none."""
    spans = [(first, last) for first in context for last in context if 0 <= last - first < longest]
    return max([(0, 0), *spans], key=lambda span: float(logits[span[0], 0] + logits[span[1], 1]))


@pytest.mark.parametrize("longest", [1, 5])
def test_the_best_span_is_the_best_of_all(tmp_path: Path, longest: int) -> None:
    kit = kit_of("answering", tmp_path, objective={"longest": longest})
    one_word = [
        {**row, "context": word, "answer": word, "start": "0"} for row, word in zip(kit.train, WORDS, strict=False)
    ]
    rows, found, exact = [*kit.held_out, *one_word], [], []
    for row, answer in zip(rows, kit.predicted(rows), strict=True):
        logits, context = inside(kit, row["question"], row["context"])
        first, last = best_span(logits, context, longest)
        wanted = [place for _, place in asked_of_spans(kit, row)]
        found.append(first > 0)
        exact.append([first, last] == wanted)
        assert answer["answer"] == row["context"][answer["start"] : answer["end"]]
        assert answer["score"] == pytest.approx(float(logits[first, 0] + logits[last, 1]), abs=1e-10)
        tokens = kit.marked(row["question"], row["context"])[0][first : last + 1] if first else []
        pieces = [(kit.tokenizer.plain.id_to_token(token) or "").removeprefix("##") for token in tokens]
        assert "".join(pieces) == answer["answer"].replace(" ", "")
    assert kit.measured()["exact_match"] == pytest.approx(np.mean(exact[: len(kit.held_out)]))
    assert any(found) and not all(found)


@pytest.mark.parametrize(
    "kind",
    [WORDPIECE, {**WORDPIECE, "lowercase": True}, {**BPE, "vocabulary": 275}, {"kind": "unigram", "vocabulary": 400}],
    ids=["wordpiece", "lowercase", "bpe", "unigram"],
)
def test_answers_become_tokens_and_come_back(tmp_path: Path, kind: dict[str, Any]) -> None:
    kit = kit_of("answering", tmp_path, data={"tokenizer": kind})
    coder, draw = Coder(kit.corpus.tokenizers), np.random.default_rng(0)

    def covered(context: str, answer: str, start: str) -> tuple[list[int], list[int]]:
        """Where the characters of the first and of the last token begin and end."""
        row = {"question": "a café?", "context": context, "answer": answer, "start": start}
        question = kit.objective.question(row, coder)
        span = kit.objective.answer(row, question, coder)["span"]
        return question["begins"][span].tolist(), question["ends"][span].tolist()

    for row in kit.train:
        begins, ends = covered(row["context"], row["answer"], "")
        found = row["context"][begins[0] : ends[1]]
        assert found.strip() == row["answer"]  # words; a token may have the space before it
        assert begins[0] + len(found) - len(found.lstrip()) == row["context"].find(row["answer"])
        context = f" a  {row['context']} é🙂a! {row['context']}"
        for begin in draw.integers(len(context), size=9).tolist():  # parts of words
            answer = context[begin : begin + int(draw.integers(1, 9))].rstrip()
            if answer and not answer[0].isspace():
                begins, ends = covered(context, answer, str(begin))
                assert begins[0] <= begin < ends[0] and begins[1] < begin + len(answer) <= ends[1]
    nothing = {"question": "a", "context": "a", "answer": ""}
    assert kit.objective.answer(nothing, kit.objective.question(nothing, coder), coder)["span"].tolist() == [0, 0]


def test_the_answer_of_a_token_with_a_space_has_none(tmp_path: Path) -> None:
    kit = kit_of("answering", tmp_path, data={"tokenizer": {**BPE, "vocabulary": 400}}, objective={"longest": 1})
    answers = [answer for answer in kit.predicted(kit.train) if answer["answer"]]
    assert answers
    assert all(answer["answer"] == answer["answer"].strip() for answer in answers)
    assert sum(answer["start"] > 0 for answer in answers) > 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": "zebra", "start": ""}, "the answer 'zebra' does not stand in the context$"),
        ({"start": "1"}, "the answer '.*' does not stand in the context at 1$"),
        ({"start": "one"}, "the column 'start' holds 'one', which is no number of a character"),
        ({"answer": " ", "context": "a b", "start": ""}, "no token of the context holds the answer ' '"),
        ({"question": " "}, "the column 'question' is empty"),
    ],
)
def test_answers_that_cannot_be(tmp_path: Path, change: dict[str, str], says: str) -> None:
    kit = kit_of("answering", tmp_path)
    row, coder = {**kit.train[0], **change}, Coder(kit.corpus.tokenizers)
    with pytest.raises(InputError, match=says):
        kit.objective.answer(row, kit.objective.question(row, coder), coder)


# What is arranged: every batch


def same(a: Batch, b: Batch) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(
        torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors
    )


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_a_function_of_seed_and_number(name: str, tmp_path: Path) -> None:
    small = {"training": {"batch": BATCH, "length": 64 if name in ROWS else 12}}
    first, again, other = (kit_of(name, tmp_path, seed=seed, **small) for seed in (3, 3, 4))
    exam = first.exam()
    ours = [first.feed.at(number) for number in (5, 0, 11)]
    theirs = [again.feed.at(number) for number in (11, 0, 5)]
    assert all(map(same, ours, reversed(theirs)))
    assert not same(ours[0], ours[1]) and not same(ours[1], other.feed.at(0))
    assert all(map(same, exam, other.exam()))  # what is held out is always asked the same
    if name == "span_corruption":  # it is not only the windows that differ
        a, b = (batch.tensors["source"] >= first.tokenizer.vocabulary for batch in ours[:2])
        assert not torch.equal(a, b)
    assert first.feed.origin(5) == again.feed.origin(5) != first.feed.origin(0)


@pytest.mark.parametrize("name", ROWS)
def test_what_is_too_long_is_refused_or_cut(name: str, tmp_path: Path) -> None:
    short = {"batch": 37, "length": 6}
    with pytest.raises(InputError, match=r"row \d+ has \d+ tokens; training.length .* allow 6, and \d+ of the rows"):
        _ = kit_of(name, tmp_path, training=short).feed
    kit = kit_of(name, tmp_path, training=short, objective={"too_long": "cut"})
    batch = kit.feed.at(0)
    assert max(tensor.shape[1] for key, tensor in batch.tensors.items() if key in ("ids", "pair", "source")) == 6
    assert batch.tokens <= 37 * 6 * len(kit.objective.sequences)
    assert 0 < kit.loss(batch) < 1e4
    assert kit.measured()["loss"] > 0
