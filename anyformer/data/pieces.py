"""Long texts in pieces that a byte-level tokenizer splits as it splits the whole, so that memory stays bounded.

The patterns of GPT-2 and its successors never reach over the border between a word and a single space after it, looking
neither back nor ahead from there. So a cut at such a border changes no token.
"""

import re
from collections.abc import Iterator

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
