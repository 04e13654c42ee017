"""Python's own documentation, as it ships inside Python: about half a megabyte of English that every machine has.

The topics of `help()`: the language reference, from "assert" to "yield". They differ a little from version to version.
"""

from collections.abc import Iterator

from anyformer.core.errors import InputError
from anyformer.core.roles import Tokenizer
from anyformer.core.spec import Fraction, spec
from anyformer.data.base import Row, TextData
from anyformer.data.text import Text
from anyformer.data.tokenizers.bytes import Bytes


@spec
class PythonDocs(TextData):
    """Each topic is a document."""

    tokenizer: Tokenizer = Bytes()
    held_out: Fraction = 0.1

    def rows(self) -> Iterator[Row]:
        """The topics, by name."""
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise InputError(
                "this Python came without its documentation (pydoc_data): install its full standard library, or take"
                " a text of your own (--set data.kind=text --set data.path=...)"
            ) from None
        yield from ({"text": topics[name]} for name in sorted(topics))

    def elsewhere(self, path: str) -> Text:
        return Text(path=path, tokenizer=self.tokenizer, held_out=1.0)
