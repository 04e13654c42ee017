"""A tiny task for every objective: rows, a model and a recipe that trains in tenths of a second."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TEXT = "the cat sat on Montréal's mat and saw 🙂 unbelievable dogs, running far away: a café!"
WORDS = TEXT.split()
LABELS = ("no", "perhaps", "yes")
SPECIAL = ["<pad>", "<s>", "</s>", "<mask>"]
ANSWERING = ("user", "assistant")
BPE = {"kind": "bpe", "vocabulary": 300, "special": SPECIAL}
WORDPIECE = {"kind": "wordpiece", "vocabulary": 90, "lowercase": False}
TALK = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ message.content + ':\\n' }}{% else %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
Tree = dict[str, Any]


def block(pattern: str, **more: Any) -> Tree:
    mixer = {"kind": "softmax", "heads": 2, "position": "rotary", "pattern": pattern}
    return {"kind": "block", "mixer": mixer, "ff": {"kind": "mlp", "hidden": 24}, **more}


def stack(*blocks: Tree) -> Tree:
    return {"kind": "stack", "blocks": [*blocks]}


def encoder(head: Tree | str) -> Tree:
    """BERT's kind, with segments."""
    body = stack(block("full"), block("full"))
    return {"kind": "encoder", "width": 16, "labels": ["segment"], "position": "segments", "body": body, "head": head}


def decoder(pattern: str = "causal", **more: Any) -> Tree:
    return {"kind": "decoder", "width": 16, "body": stack(block(pattern), block(pattern)), **more}


def translator() -> Tree:
    reads = block("causal", cross={"kind": "cross", "heads": 2})
    return {"kind": "encoder_decoder", "width": 16, "encoder": stack(block("full")), "decoder": stack(reads)}


@dataclass(frozen=True)
class Task:
    """objective, model, tokenizer: of a recipe. columns: of the rows, those that it reads. data: what else it says."""

    objective: Tree
    model: Tree
    tokenizer: Tree = field(default_factory=lambda: WORDPIECE)
    columns: tuple[str, ...] = ("text",)
    data: Tree = field(default_factory=dict)


def _translation(kind: str, model: Tree, data: Tree | None = None, **more: Any) -> Task:
    return Task({"kind": kind, **more}, model, BPE, ("source", "target"), data or {})


STREAMS = {
    "next_token": Task({"kind": "next_token"}, decoder()),
    "masked": Task({"kind": "masked", "share": 0.3}, encoder("masked")),
    "whole_words": Task({"kind": "masked", "share": 0.3, "whole_words": True}, encoder("masked")),
    "next_sentence": Task({"kind": "masked", "next_sentence": True}, encoder("pretraining")),
    "span_corruption": Task(
        {"kind": "span_corruption", "share": 0.3, "mean": 2.0, "sentinels": 7}, translator(), tokenizer=BPE
    ),
}
ROWS = {
    "seq2seq": _translation("seq2seq", translator(), smoothing=0.2),
    "two_tokenizers": _translation(
        "seq2seq", translator() | {"source_embedding": "tokens"}, {"source_tokenizer": {**BPE, "vocabulary": 310}}
    ),
    "classification": Task(
        {"kind": "classification", "smoothing": 0.3}, encoder({"kind": "classify"}), columns=("text", "label")
    ),
    "pairs": Task(
        {"kind": "classification"},
        encoder({"kind": "classify", "pool": "mean", "hidden": True}),
        columns=("text", "pair", "label"),
    ),
    "regression": Task({"kind": "regression"}, encoder("regress"), columns=("text", "pair", "value")),
    "contrastive": Task({"kind": "contrastive", "temperature": 0.7}, encoder("sentence"), columns=("text", "pair")),
    "alone": Task({"kind": "contrastive", "temperature": 0.7}, encoder("sentence")),
    "tagging": Task({"kind": "tagging"}, encoder({"kind": "tag"}), columns=("text", "tags")),
    "answering": Task(
        {"kind": "answering", "longest": 5}, encoder("span"), columns=("question", "context", "answer", "start")
    ),
    "prompted": _translation("prompted", decoder(), smoothing=0.2),
    "prefix": _translation("prompted", decoder("prefix | causal", labels=["prefix"])),
    "replies": Task({"kind": "replies", "template": TALK}, decoder(), BPE, ("messages", "message")),
}
TASKS = STREAMS | ROWS


def toy_rows(count: int, seed: int) -> list[dict[str, str]]:
    """Rows with every column that an objective asks for."""
    draw, rows = np.random.default_rng(seed), []
    for _ in range(count):
        words, other = ([str(word) for word in draw.choice(WORDS, draw.integers(2, 9))] for _ in range(2))
        first, last = sorted(draw.integers(len(words), size=2).tolist())
        text = " ".join(words)
        rows.append(
            {
                "text": text,
                "pair": " ".join(other),
                "label": LABELS[len(words) % 3],
                "value": str(len(words) / 7 - 0.3),
                "tags": " ".join(LABELS[len(word) % 3] for word in words),
                "question": other[0],
                "context": text,
                "answer": " ".join(words[first : last + 1]),
                "start": str(len(" ".join([*words[:first], ""]))),
                "source": text,
                "target": " ".join(other),
                "message": other[0],
                "messages": talk((other[0], text), (other[-1], other[0])),
            }
        )
    return rows


def talk(*turns: tuple[str, str]) -> str:
    """A conversation: what a user says and what is answered, turn by turn."""
    messages = [{"role": role, "content": text} for turn in turns for role, text in zip(ANSWERING, turn, strict=True)]
    return json.dumps(messages, ensure_ascii=False)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def recipe_for(task: Task, train: Path, held_out: Path, *, steps: int = 10, **sections: Any) -> Tree:
    """A recipe on two JSONL files; sections are merged into those here."""
    tree: Tree = {
        "model": task.model,
        "objective": task.objective,
        "data": {
            "kind": "table",
            "path": str(train),
            "validation_path": str(held_out),
            "columns": {name: name for name in task.columns},
            "tokenizer": task.tokenizer,
            **task.data,
        },
        "optimizer": {"lr": 0.01},
        "schedule": "constant",
        "budget": {"steps": steps},
        "training": {"batch": 5, "length": 64},
        "evaluate": {"every": 4, "batches": None},
        "snapshots": {"every": 3},
    }
    for name, section in sections.items():
        tree[name] = {**tree[name], **section} if isinstance(section, dict) else section
    return tree
