"""Prompts: any rows written as a text and its answer, by templates (T5, Raffel et al. 2020).

source: "translate English to German: {source}", target: "{target}"; or "sst2 sentence: {text}" and "{label}".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, model_validator

from anyformer.core.errors import ConfigError
from anyformer.core.explain import came
from anyformer.core.roles import Data, Tokenizer
from anyformer.core.spec import DataSpec, Fraction, spec
from anyformer.data.base import Row, TextData, column
from anyformer.data.tokenizers.bytes import Bytes

PIECE = re.compile(r"\{(\w+)\}|(\{\{|\}\})|([{}])")  # a column, a brace written twice, a brace alone


def _checked(template: str) -> str:
    """A template that can be filled: `{name}` and nothing cleverer, so that no template can run code."""
    pieces = list(PIECE.finditer(template))
    if any(piece[3] for piece in pieces):
        raise ValueError(f"{template!r} should hold columns such as {{text}}; write {{{{ or }}}} for a brace")
    if not any(piece[1] for piece in pieces):
        raise ValueError(f"{template!r} names no column: write one in braces, such as {{text}}")
    return template


OWN = ("tokenizer", "source_tokenizer", "held_out")  # said by data that holds other data, and so not by the other
Template = Annotated[str, AfterValidator(_checked)]


@spec
class Prompts(TextData):
    """The rows of other data, as the columns `source` and `target`, or `source`, `chosen` and `rejected`.

    inner: the data; which of its rows are held out, and how they become numbers, is said here. source, target: text
    with columns of `inner` in braces. chosen, rejected: the same of two answers, in the place of the target.
    """

    inner: Data
    source: Template = "{source}"
    target: Template = "{target}"
    chosen: Template | None = None
    rejected: Template | None = None
    tokenizer: Tokenizer = Bytes()
    source_tokenizer: Tokenizer | None = None
    held_out: Fraction = 0.1

    @model_validator(mode="after")
    def _both_or_none(self) -> Prompts:
        if (self.chosen is None) != (self.rejected is None):
            raise ValueError("chosen and rejected are compared with each other: give both, or none")
        return self

    def rows(self) -> Iterator[Row]:
        """A row for every row."""
        return map(self._written, without_own(self.inner).rows())

    def validation(self) -> Iterator[Row] | None:
        rows = without_own(self.inner).validation()
        return None if rows is None else map(self._written, rows)

    def elsewhere(self, path: str) -> Prompts:
        inner = without_own(self.inner)
        there = dataclasses.replace(inner.elsewhere(path), held_out=inner.held_out)
        return dataclasses.replace(self, inner=there, held_out=1.0)

    def _written(self, row: Row) -> Row:
        if self.chosen is None or self.rejected is None:
            return {"source": filled(self.source, row), "target": filled(self.target, row)}
        templates = {"source": self.source, "chosen": self.chosen, "rejected": self.rejected}
        return {name: filled(template, row) for name, template in templates.items()}


def without_own(data: DataSpec) -> TextData:
    """Data that other data holds: its rows alone count, and what it says of anything else is refused."""
    if not isinstance(data, TextData):
        raise ConfigError(f"{type(data).__name__} has no rows of text; take data such as table or parallel")
    for field in dataclasses.fields(data):
        value = getattr(data, field.name)
        if field.name in OWN and value != field.default:
            raise ConfigError(
                f"{field.name} ({came(value)}) of data inside of other data is not used: set data.{field.name}"
            )
    return data


def filled(template: str, row: Row) -> str:
    """A template with the texts of a row in it; what looks like a column inside of a text is that text."""
    return PIECE.sub(lambda piece: column(row, piece[1]) if piece[1] else piece[2][0], template)
