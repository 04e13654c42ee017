"""The process that renders chat templates: a line of JSON in, a line of JSON out, until nobody asks any more.

It is run as a script of its own, away from the package, and imports Jinja alone. Jinja's sandbox keeps a template to
texts, lists and numbers; the limits of the process bound what it can make of them.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateRuntimeError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

SHOWN = 300  # characters of an error


class Sandbox(ImmutableSandboxedEnvironment):
    """What a template may not reach is an error at once, even where nothing is done with it."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"it reaches for {attribute!r} of a {type(obj).__name__}, which is not for templates")


class Said(Extension):
    """`{% generation %} … {% endgeneration %}`: what the assistant says.

    written: how many characters were given out before. spans: from where to where each block went.
    """

    tags = {"generation"}  # noqa: RUF012
    written: int = 0
    spans: list[tuple[int, int]]

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_block"), [], [], body).set_lineno(line)

    def _block(self, caller: Callable[[], str]) -> str:
        text = caller()
        self.spans.append((self.written, self.written + len(text)))
        return text


class Names(Namespace):
    """Jinja's `namespace`, for names that are not Python's own."""

    def __init__(*args: Any, **named: Any) -> None:
        Namespace.__init__(*args, **named)
        for name in dict(*args[1:], **named):
            _checked(name)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(_checked(name), value)


def _checked(name: str) -> str:
    if name.startswith("_"):
        raise SecurityError(f"it stores {name!r} in a namespace: names there begin with a letter")
    return name


def refuse(message: str) -> None:
    raise TemplateError(message)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own would write < and & as escapes, for web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def now(form: str) -> str:
    return datetime.now().strftime(form)


class Limits:
    """seconds: of work for one conversation. memory: bytes in all. Where a platform has no such limits: none."""

    def __init__(self, seconds: int, memory: int) -> None:
        self.seconds = seconds
        try:
            import resource
        except ImportError:
            self.resource = None
            return
        self.resource = resource
        for which, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_AS, memory)):
            self._set(which, most, most)

    def renew(self) -> None:
        """From now on."""
        if self.resource is not None:
            self._set(self.resource.RLIMIT_CPU, int(time.process_time()) + 1 + self.seconds, None)

    def _set(self, which: int, soft: int, hard: int | None) -> None:
        assert self.resource is not None
        try:
            self.resource.setrlimit(which, (soft, self.resource.getrlimit(which)[1] if hard is None else hard))
        except (ValueError, OSError):
            return  # one that this platform knows by name only, or that is lower already


def main() -> None:
    seconds, memory, most = map(int, sys.argv[-3:])
    limits = Limits(seconds, memory)
    limits.renew()
    source = json.loads(sys.stdin.readline())
    jinja = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Said, loopcontrols])
    jinja.filters["tojson"] = tojson
    jinja.globals.update(raise_exception=refuse, strftime_now=now, namespace=Names)
    said = jinja.extensions[Said.identifier]
    assert isinstance(said, Said)
    template = None
    for line in sys.stdin:
        limits.renew()
        said.written, said.spans = 0, []
        pieces: list[str] = []
        try:
            template = template or jinja.from_string(source)
            for piece in template.generate(**json.loads(line)):
                pieces.append(piece)
                said.written += len(piece)
                if said.written > most:
                    raise TemplateRuntimeError(f"it writes more than {most:,} characters")
            answer: dict[str, Any] = {"text": "".join(pieces), "spans": said.spans}
        except MemoryError:
            answer = {"error": f"it takes more than {memory // 2**20} MiB of memory"}
        except TemplateSyntaxError as error:
            answer = {"error": f"it is no Jinja: {error.message}"[:SHOWN], "line": error.lineno}
        except Exception as error:
            lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == "<template>"]
            answer = {"error": (str(error) or type(error).__name__)[:SHOWN], "line": lines[-1] if lines else None}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
