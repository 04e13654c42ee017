"""Text files and folders of them."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from anyformer.core.errors import InputError
from anyformer.core.roles import Tokenizer
from anyformer.core.spec import Fraction, spec
from anyformer.data.base import Row, TextData
from anyformer.data.reading import find, read_text
from anyformer.data.tokenizers.bytes import Bytes

Name = Annotated[str, Field(min_length=1)]


@spec
class Text(TextData):
    """A document is a file, or what stands between `separator`s in it.

    path: files and folders, as given or below $ANYFORMER_DATA (default `data/`); of a folder, every text file in it,
    compressed by gzip or not. held_out: the fraction of documents that is never trained on; of a single document, its
    tail. errors: what becomes of bytes that are no UTF-8, an error or U+FFFD. source: what the data is and where it is
    published, for those who do not have it yet.
    """

    path: Name | Annotated[tuple[Name, ...], Field(min_length=1)]
    separator: Name | None = None
    tokenizer: Tokenizer = Bytes()
    held_out: Fraction = 0.1
    errors: Literal["strict", "replace"] = "strict"
    source: str = ""

    def rows(self) -> Iterator[Row]:
        """The documents of every file, files in the order of `path` and sorted within a folder."""
        paths = (self.path,) if isinstance(self.path, str) else self.path
        found = False
        for path in paths:
            for file in find(path, self.source):
                text = read_text(file, self.errors)
                for document in text.split(self.separator) if self.separator else (text,):
                    if document.strip():  # between two separators in a row there is nothing to learn
                        found = True
                        yield {"text": document}
        if not found:
            raise InputError(f"{', '.join(paths)}: no text, only empty files or white space: name files that hold text")

    def elsewhere(self, path: str) -> "Text":
        return dataclasses.replace(self, path=path, held_out=1.0)
