"""What the `tokenizers` library may raise, turned into one clear error.

A malformed tokenizer makes its Rust code panic, and a panic arrives as `PanicException`, which is a BaseException:
plain `except Exception` misses it. It cannot be imported: its name is all there is to know it by.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from anyformer.core.errors import InputError


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Errors of the library inside become an InputError that says `what` failed."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # Ctrl-C, and the end of the process
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{what}: the tokenizers library says: {reason[:300]}") from error


def check_text(text: str) -> None:
    """Refuse half of a surrogate pair: it is a `str` in Python, but no text in Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a surrogate pair and no"
            " character: take it out, or read the text with errors='replace'"
        ) from None
