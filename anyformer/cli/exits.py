"""How a command ends: every exception as one line that teaches, and the exit code that belongs to it.

0 well; 1 a fault of ours; 2 usage or configuration; 3 an input file; 4 memory or disk; 5 numerical stop;
130 interrupted; 143 terminated; 141 the reader of our output went away.
"""

import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType

import typer

from anyformer.core.errors import ConfigError, InputError, NumericalStop, ResourceError

BROKEN_PIPE = 128 + signal.SIGPIPE
INTERRUPTED = 128 + signal.SIGINT
# What the machine lacks, told apart from a file that is wrong: the first can be retried, the second cannot.
RESOURCES = {
    errno.ENOSPC: "no space left on the device; free some or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some or choose another folder",
    errno.EFBIG: "the file is larger than the system allows",
    errno.ENOMEM: "no memory left",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EMFILE: "too many open files",
    errno.EIO: "the device reports an input/output error",
}


def verdict(error: BaseException) -> tuple[int, str]:
    """The exit code and the line for anything that a verb may raise."""
    match error:
        case ConfigError() | InputError() | ResourceError() | NumericalStop():
            return error.exit_code, str(error)
        case typer.TyperException():  # the command line itself: unknown option, missing argument
            return error.exit_code, error.format_message()
        case UnicodeError():
            return InputError.exit_code, f"text that is not in the encoding it should be in: {error}"
        case ValueError():
            return ConfigError.exit_code, _explained(error)
        case MemoryError():
            return ResourceError.exit_code, f"not enough memory; a smaller batch or length needs less {error}".rstrip()
        case OSError():
            return _file_verdict(error)
        case ModuleNotFoundError() if not (error.name or "anyformer").startswith("anyformer"):
            package = str(error.name).partition(".")[0]
            return ConfigError.exit_code, f"{package} is not installed; try: pip install {package}"
        case RuntimeError() if _is_out_of_memory(error):
            return ResourceError.exit_code, f"not enough memory; a smaller batch or length needs less ({error})"
        case _:
            return 1, f"internal error: {type(error).__name__}: {error}; --debug shows the traceback"


def _explained(error: ValueError) -> str:
    """pydantic's report in our words: the path of the key, what came, what is allowed."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    from anyformer.core.explain import explain

    return explain(error)


def _file_verdict(error: OSError) -> tuple[int, str]:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in RESOURCES:
        return ResourceError.exit_code, where + RESOURCES[error.errno]
    return InputError.exit_code, where + (error.strerror or str(error)).lower()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """torch raises RuntimeError where memory ends, and only its words tell; the class is its own on accelerators."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def one_line(message: str) -> str:
    """A message that cannot break the line or the terminal it is shown on."""
    joined = "; ".join(part.strip() for part in message.splitlines() if part.strip())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in joined)


@contextmanager
def termination() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like any exit, so that whatever is open is closed; a verb may do more meanwhile."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def spoken_warnings() -> Iterator[None]:
    """Whatever the library warns of is one line on standard error, without the place in its code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {one_line(str(message))}", file=sys.stderr)
        yield


def tolerate_odd_text() -> None:
    """A character that the terminal's encoding lacks is shown as an escape; text is never lost to an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Write what is buffered; a closed standard output is None."""
    if sys.stdout is not None:
        sys.stdout.flush()


def rescue_output() -> None:
    """After an error: what was already said is written if it can be."""
    try:
        flush_output()
    except OSError:
        abandon_output()


def abandon_output() -> None:
    """Nobody reads or nothing can be written: drop what is buffered, or Python complains again on its way out."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
