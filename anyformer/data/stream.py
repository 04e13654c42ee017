"""Text as it is generated: token by token, holding back what is only half a character yet.

Whatever the tokens, the strings given out, put together, are the text that decoding them all at once gives.
"""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable


class Stream(ABC):
    """One text in the making; each text needs its own."""

    @abstractmethod
    def push(self, token: int) -> str:
        """The text that this token completes: often one word, sometimes nothing."""

    @abstractmethod
    def flush(self) -> str:
        """What was held back, at the end: bytes that never became a character are U+FFFD."""


class ByteStream(Stream):
    """For byte-level vocabularies, where a token is some bytes of UTF-8."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self.bytes_of = bytes_of
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self.decoder.decode(self.bytes_of(token))

    def flush(self) -> str:
        return self.decoder.decode(b"", final=True)


LONGEST = 4  # bytes in a code point, and so tokens that may still become one


class WindowStream(Stream):
    """For any other vocabulary, where what a token looks like can depend on the one before (spaces between words).

    The last tokens are decoded with and without the new ones, and the difference is given out. (Where single bytes fall
    back to tokens of their own, as in SentencePiece, invalid UTF-8 can come out in fewer or more U+FFFD than at once.)
    """

    def __init__(self, decode: Callable[[list[int]], str], silent: frozenset[int]) -> None:
        self.decode = decode
        self.silent = silent  # tokens without text
        self.before: list[int] = []
        self.held: list[int] = []

    def push(self, token: int) -> str:
        if token in self.silent:
            return ""
        self.held.append(token)
        text = self._new()
        if text.endswith("\ufffd") and len(self.held) < LONGEST:
            return ""
        return self._give(text)

    def flush(self) -> str:
        return self._give(self._new())

    def _new(self) -> str:
        return self.decode(self.before + self.held)[len(self.decode(self.before)) :]

    def _give(self, text: str) -> str:
        self.before = self.held if text else self.before + self.held
        self.held = []
        return text
