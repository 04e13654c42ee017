"""Mixture: several data as one, some read more often than others (Brown et al. 2020, table 2.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, ClassVar

from pydantic import Field

from anyformer.core.errors import ConfigError
from anyformer.core.roles import Data, Tokenizer
from anyformer.core.spec import Fraction, Positive, Spec, spec
from anyformer.data.base import Row, TextData, written
from anyformer.data.prompts import without_own
from anyformer.data.text import Text
from anyformer.data.tokenizers.bytes import Bytes


@spec
class Share(Spec):
    """times: how often its rows are read in the time in which those of a share of 1 are read once."""

    data: Data
    times: Positive = 1.0


@spec
class Mixture(TextData):
    """All rows of all shares; which are held out, and how they become numbers, is said here.

    A row is read a whole number of times: of a share of 2.5 half of the rows twice and half of them three times, which
    ones is decided by what they say. What is held out is read once.
    """

    repeats: ClassVar[bool] = True

    shares: Annotated[tuple[Share, ...], Field(min_length=1)]
    tokenizer: Tokenizer = Bytes()
    source_tokenizer: Tokenizer | None = None
    held_out: Fraction = 0.1

    def rows(self) -> Iterator[Row]:
        """Share after share, each row as often as it counts."""
        for share in self.shares:
            for row in without_own(share.data).rows():
                for _ in range(int(share.times + _part(row))):
                    yield row

    def validation(self) -> Iterator[Row] | None:
        sets = [without_own(share.data).validation() for share in self.shares]
        known = [rows for rows in sets if rows is not None]
        if known and len(known) < len(sets):
            raise ConfigError(
                "some shares of the mixture name rows to hold out and some do not: let all do so, or none"
            )
        return chain(*known) if known else None

    def elsewhere(self, path: str) -> Text:
        return Text(path=path, tokenizer=self.tokenizer, held_out=1.0)


def _part(row: Row) -> float:
    """A number from 0 to 1 for what a row says."""
    digest = hashlib.sha256(written(row).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[8:16], "big") / 2**64
