"""Hub: data sets of the Hugging Face Hub, read by the package `datasets` (Lhoest et al. 2021); an extra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.extras import need
from anyformer.core.roles import Tokenizer
from anyformer.core.spec import Fraction, spec
from anyformer.data.base import Row, TextData
from anyformer.data.records import chosen
from anyformer.data.table import Table
from anyformer.data.text import Name
from anyformer.data.tokenizers.bytes import Bytes

SAFE = 4  # the first version of `datasets` that cannot run code from a data set


@spec
class Hub(TextData):
    """A row is a row of a data set; it is downloaded once, and kept where `datasets` keeps it.

    name: such as stanfordnlp/sst2. config: of the data set's configurations. split, validation_split: what is trained
    on, and what is held out instead of a fraction of that. columns: the name that is asked for -> the data set's; {}:
    all columns, under their own names.
    """

    name: Name
    config: Name | None = None
    split: Name = "train"
    validation_split: Name | None = None
    columns: dict[Name, Name] = Field(default_factory=dict)
    tokenizer: Tokenizer = Bytes()
    source_tokenizer: Tokenizer | None = None
    held_out: Fraction = 0.1

    def rows(self) -> Iterator[Row]:
        """The rows of the split, in its order."""
        return self._rows(self.split)

    def validation(self) -> Iterator[Row] | None:
        return None if self.validation_split is None else self._rows(self.validation_split)

    def elsewhere(self, path: str) -> Table:
        return Table(
            path=path,
            columns=self.columns,
            tokenizer=self.tokenizer,
            source_tokenizer=self.source_tokenizer,
            held_out=1.0,
        )

    def _rows(self, split: str) -> Iterator[Row]:
        columns, number = self.columns, 0
        for number, record in enumerate(self._records(split), 1):
            columns = columns or {name: name for name in record}
            yield chosen(record, columns, f"{self.name}, {split}, row {number}")
        if not number:
            raise InputError(f"{self.name} has no row in {split!r}: name another split")

    def _records(self, split: str) -> Iterable[Mapping[str, Any]]:
        datasets = need("datasets", extra="datasets")
        if int(datasets.__version__.partition(".")[0]) < SAFE:
            raise ConfigError(
                f"datasets {datasets.__version__} can run code that comes with data; version {SAFE} cannot: pip install"
                " -U 'anyformer[datasets]'"
            )
        try:
            return datasets.load_dataset(self.name, self.config, split=split)
        except Exception as error:  # of many kinds: no such name, no network, a damaged file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{self.name}: the split {split!r} cannot be loaded: {reason[:300]}") from error
