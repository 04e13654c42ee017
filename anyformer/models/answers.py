"""What a published encoder answers: a class or numbers for a text, a class for each token.

`id2label` names the classes; `problem_type` says whether a text has a class or numbers.
"""

from __future__ import annotations

from typing import Any

from anyformer.checkpoints.config import FRACTION, SIZE, Config, Kind, one_of, or_none
from anyformer.feedforward.activations import Activation
from anyformer.heads.classify import Classify
from anyformer.heads.pooling import Pool
from anyformer.heads.regress import Regress
from anyformer.heads.sentence import Sentence
from anyformer.heads.tag import Tag

POOLED = Sentence(pool="first", hidden=True, unit=False)  # what a bare model's pooler says of a text
PROBLEMS = or_none(one_of({"single_label_classification": "classify", "regression": "regress"}))


def _read(value: Any) -> tuple[str, ...]:
    try:
        found = {int(number): name for number, name in value.items()}
        names = tuple(found[number] for number in range(len(found)))
    except (AttributeError, KeyError):  # no table, or a number is left out
        raise ValueError from None
    if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError
    return names


def _unnamed(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{number}" for number in range(count))


def _write(names: tuple[str, ...]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


LABELS: Kind[tuple[str, ...]] = Kind("a table of numbers from 0 and names, no two the same", _read, _write)
COUNT: Kind[int] = Kind(LABELS.what, lambda value: len(_read(value)), lambda count: _write(_unnamed(count)))
# `id2label` the other way round: written for other readers, never looked at
NUMBERS: Kind[Any] = Kind("a table", lambda value: value, lambda names: {name: at for at, name in enumerate(names)})


def whole_text(
    c: Config,
    dropout: float,
    *,
    hidden: bool = True,
    activation: Activation = "tanh",
    pool: Pool = "first",
    bias: bool = True,
) -> Classify | Regress:
    """A class or numbers; where nothing is said, a single label is a number, as it is for those who trained it."""
    problem = c.take("problem_type", PROBLEMS, "head.kind", None)
    unsaid = _unnamed(c.given("num_labels", SIZE, 2))
    one = len(c.given("id2label", LABELS, unsaid)) == 1
    if problem == "regress" or (problem is None and one):
        outputs = c.take("id2label", COUNT, "head.outputs", _write(unsaid))
        return Regress(outputs=outputs, pool=pool, hidden=hidden, activation=activation, dropout=dropout, bias=bias)
    return Classify(labels=labels(c), pool=pool, hidden=hidden, activation=activation, dropout=dropout, bias=bias)


def each_token(c: Config, dropout: float) -> Tag:
    """A class for each token."""
    return Tag(labels=labels(c), dropout=dropout)


def labels(c: Config) -> tuple[str, ...]:
    """The names of the classes, LABEL_0, LABEL_1, … where there are none."""
    c.take("label2id", NUMBERS, "head.labels", None)
    return c.take("id2label", LABELS, "head.labels", _write(_unnamed(c.given("num_labels", SIZE, 2))))


def head_dropout(c: Config, key: str, usual: float) -> float:
    """Of what the logits are made from; null: as everywhere else."""
    said = c.take(key, or_none(FRACTION), "head.dropout", None)
    return usual if said is None else said
