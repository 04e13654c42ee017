"""What a published encoder answers: a class, several, or numbers for a text, a class for each token.

`id2label` names the classes; `problem_type` says whether a text has one, any number of them, or numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from anyformer.checkpoints.config import FRACTION, SIZE, Config, Kind, one_of, or_none
from anyformer.heads.classify import Classify
from anyformer.heads.mark import Mark
from anyformer.heads.regress import Regress
from anyformer.heads.sentence import Sentence
from anyformer.heads.tag import Tag

POOLED = Sentence(pool="first", hidden=True, unit=False)  # what a bare model's pooler says of a text
PROBLEMS = or_none(
    one_of({"single_label_classification": "classify", "multi_label_classification": "mark", "regression": "regress"})
)


def _read(value: Any) -> tuple[str, ...]:
    try:
        found = {int(number): name for number, name in value.items()}
        names = _apart([found[number] for number in range(len(found))])
    except (AttributeError, KeyError):  # no table, or a number is left out
        raise ValueError from None
    if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError
    return names


def _apart(names: list[str]) -> tuple[str, ...]:
    """The names, where one comes again with its number (ImageNet has two cranes, a bird and a machine)."""
    return tuple(f"{name} ({at})" if name in names[:at] else name for at, name in enumerate(names))


def _unnamed(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{number}" for number in range(count))


def _write(names: tuple[str, ...]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


LABELS: Kind[tuple[str, ...]] = Kind("a table of numbers from 0 and names", _read, _write)
COUNT: Kind[int] = Kind(LABELS.what, lambda value: len(_read(value)), lambda count: _write(_unnamed(count)))
# `id2label` the other way round: written for other readers, never looked at
NUMBERS: Kind[Any] = Kind("a table", lambda value: value, lambda names: {name: at for at, name in enumerate(names)})


def whole_text(c: Config, like: Classify) -> Classify | Mark | Regress:
    """A class, several, or numbers; where nothing is said, a single label is a number, as for those who trained it.

    like: all of it but the names.
    """
    problem = c.take("problem_type", PROBLEMS, "head.kind", None)
    unsaid = _unnamed(c.given("num_labels", SIZE, 2))
    one = len(c.given("id2label", LABELS, unsaid)) == 1
    if problem == "classify" or (problem is None and not one):
        return replace(like, labels=labels(c))
    same = {name: getattr(like, name) for name in like.fields() if name != "labels"}
    if problem == "mark":
        return Mark(labels=labels(c), **same)
    return Regress(outputs=c.take("id2label", COUNT, "head.outputs", _write(unsaid)), **same)


def each_token(c: Config, dropout: float) -> Tag:
    """A class for each token."""
    return Tag(labels=labels(c), dropout=dropout)


def labels(c: Config, at: str = "head") -> tuple[str, ...]:
    """The names of the classes, LABEL_0, LABEL_1, … where there are none."""
    c.take("label2id", NUMBERS, f"{at}.labels", None)
    return c.take("id2label", LABELS, f"{at}.labels", _write(_unnamed(c.given("num_labels", SIZE, 2))))


def head_dropout(c: Config, key: str, usual: float, unsaid: float | None = None) -> float:
    """Of what the logits are made from; null: as everywhere else. unsaid: where the key is absent."""
    said = c.take(key, or_none(FRACTION), "head.dropout", unsaid)
    return usual if said is None else said
