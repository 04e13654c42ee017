"""Chat templates are rendered in a process of their own, with limits of time, memory and size: see `jinja_child`.

A template is a program that came with somebody's weights. Jinja's sandbox keeps it from the machine, but lets it loop
for ever and build texts without end; a process that may be killed bounds that as well. It stays for the next
conversation, so that a data set costs one start.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from anyformer.core.errors import InputError

SECONDS, WAITING = 2, 10  # of work for one conversation, and of waiting for it
MEMORY = 2**29  # bytes, with Python itself
LONGEST = 2**22  # characters of one conversation
OVER = (-24, -9)  # how a process ends that took too long: SIGXCPU by itself, SIGKILL by us
ANSWER = 12 * LONGEST + 2**20  # bytes of it as JSON, which writes a rare character as twelve
START = "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_path(sys.argv[1], run_name='__main__')"


@lru_cache(maxsize=4)
def renderer(source: str) -> Renderer:
    """The one process of a template."""
    return Renderer(source)


class Renderer:
    """source: of the template."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lock = Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def render(self, names: Mapping[str, Any], where: str) -> tuple[str, list[tuple[int, int]]]:
        """The text, and from where to where its `generation` blocks go. names: what the template may name."""
        with self.lock:
            answer = self._answer(names, where)
        match answer:
            case {"text": str(text), "spans": list(spans)}:
                return text, [(start, end) for start, end in spans]
            case {"error": str(error), **rest}:
                line = rest.get("line")
                raise InputError(f"{where}{'' if line is None else f', line {line}'}: {' '.join(error.split())}")
        raise InputError(f"{where}: the process that rendered it gave no answer")

    def _answer(self, names: Mapping[str, Any], where: str) -> dict[str, Any]:
        if self.process is None:
            self.process = self._started()
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        line, late = b"", Timer(WAITING, process.kill)
        late.start()
        try:
            process.stdin.write(json.dumps(dict(names)).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline(ANSWER)
        except OSError:
            line = b""  # it has gone
        finally:
            late.cancel()
            if not line.endswith(b"\n"):  # also Ctrl-C: what it may still say belongs to nothing
                self._end()
                self.process = None
        if line.endswith(b"\n"):
            return json.loads(line)
        if line:
            raise InputError(f"{where}: it writes more than {LONGEST:,} characters")
        if process.returncode in OVER:
            raise InputError(f"{where}: it takes more than {SECONDS} seconds for one conversation")
        raise InputError(f"{where}: the process that rendered it ended with {process.returncode}")

    def _started(self) -> subprocess.Popen[bytes]:
        found = importlib.util.find_spec("jinja2")
        assert found is not None and found.origin is not None
        script, packages = Path(__file__).with_name("jinja_child.py"), Path(found.origin).parents[1]
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, str(script), str(packages), *map(str, (SECONDS, MEMORY, LONGEST))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
        )
        self._end = weakref.finalize(self, _ended, process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.source).encode() + b"\n")
        return process


def _ended(process: subprocess.Popen[bytes]) -> None:
    """One that waits for us ends when nobody can ask any more."""
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            assert pipe is not None
            pipe.close()
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
