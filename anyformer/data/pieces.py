"""Long texts in pieces that a byte-level tokenizer splits as it splits the whole, so that memory stays bounded.

The patterns of GPT-2 and its successors never reach over the border between a word and a single space after it, looking
neither back nor ahead from there. So a cut at such a border changes no token.
"""

import re
from collections.abc import Iterable, Iterator

from anyformer.core.errors import InputError
from anyformer.data.guard import check_text

SIZE = 1 << 20  # characters: a few hundred megabytes of the library's bookkeeping, at most
BORDER = re.compile(r"(?<=\S)(?= \S)")


def pieces(text: str, size: int = SIZE) -> Iterator[str]:
    """`text` in order, in pieces of `size` characters or a little more.

    Where there is no border within another `size` characters (text without spaces) it is cut anyway: the text is still
    the same, one word in a million may be split in another way. No piece is longer than twice `size`.
    """
    start = 0
    while len(text) - start > size:
        border = BORDER.search(text, start + size, start + 2 * size)
        if border is None and len(text) - start <= 2 * size:
            break  # what is left is short enough
        end = border.start() if border else start + size
        yield text[start:end]
        start = end
    yield text[start:]


def training_batches(documents: Iterable[str], kind: str) -> Iterator[list[str]]:
    """The text that a tokenizer is trained on, some pieces at a time. kind: what is trained, for the error of none."""
    batch: list[str] = []
    held, empty = 0, True
    for document in documents:
        check_text(document)
        empty = empty and (not document or document.isspace())
        for piece in pieces(document):
            batch.append(piece)
            held += len(piece)
            if held >= SIZE:
                yield batch
                batch, held = [], 0
    if empty:
        raise InputError(f"there is no training text to learn {kind} from: lower data.held_out, or take bytes")
    yield batch
