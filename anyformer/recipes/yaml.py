"""YAML 1.2 as a recipe needs it: mappings with text keys, lists, text, numbers, true, false, null. All else is refused.

`ruamel.yaml` does the parsing; values are built here from its events, so that whatever people stumble over is told
with its line: duplicate keys, dates, tags, keys that are no text, infinities, YAML 1.1, aliases that loop or explode.
"""

from __future__ import annotations

import copy
import io
import math
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.explain import came

LONGEST = 1_000_000  # characters
DEEPEST = 100
MOST = 100_000  # values, aliases counted as what they stand for

WORDS = {"": None, "~": None, "true": True, "false": False, "null": None}
WORDS |= {spelling: value for word, value in WORDS.items() for spelling in (word.capitalize(), word.upper())}
WHOLE = re.compile(r"[-+]?\d+|0x[0-9a-fA-F]+|0o[0-7]+", re.ASCII)
NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)
UNBOUNDED = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
DATE = re.compile(r"\d{4}-\d\d?-\d\d?([Tt\s].*)?", re.ASCII)


def scalar(text: str) -> Any:
    """What an unquoted word stands for; raises ValueError for what a recipe has no use for."""
    if text in WORDS:
        return WORDS[text]
    if WHOLE.fullmatch(text):
        if len(text) > 40:
            raise ValueError(f"{came(text)} is too large a number")
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    if NUMBER.fullmatch(text):
        if math.isinf(float(text)):
            raise ValueError(f"{came(text)} is too large a number")
        return float(text)
    if UNBOUNDED.fullmatch(text):
        raise ValueError(f"{text} is no number that a recipe can use; quote it if it is text")
    if DATE.fullmatch(text):
        raise ValueError(f"{text} reads as a date; quote it if it is text")
    return text


def decode(data: bytes, source: str) -> str:
    """A file's bytes as text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{source}, line {line}: byte {data[error.start]:#04x} is no UTF-8; save it as UTF-8"
        ) from None


def load(text: str, source: str) -> Any:
    """The value that a YAML text stands for; source: how messages name the text."""
    if len(text) > LONGEST:
        raise ConfigError(f"{source}: has {len(text)} characters; a recipe has at most {LONGEST}")
    builder = _Builder(source)
    try:
        for event in YAML(typ="safe", pure=True).parse(io.StringIO(text)):
            builder.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise ConfigError(f"{source}{where}: is no YAML: {problem}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{source}, line {line}: is no YAML: the character U+{error.character:04X} is not allowed"
        ) from None
    if not builder.documents:
        raise ConfigError(f"{source}: is empty")
    return builder.root


def load_mapping(text: str, source: str) -> dict[str, Any]:
    """The same for a text that has to be a mapping, as recipes and presets are."""
    tree = load(text, source)
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: should be a mapping, `key: value`; came {came(tree)}")
    return tree


@dataclass
class _Open:
    """A mapping or list that is not finished."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    line: int
    before: int  # values that were there when it began
    key: str | None = None  # of a mapping: waiting for its value


@dataclass
class _Builder:
    """Builds a value from events, without recursion."""

    source: str
    documents: int = 0
    root: Any = None
    count: int = 0
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)  # name -> finished value, how many values in it

    def take(self, event: Event) -> None:
        """One event further."""
        line = event.start_mark.line + 1
        match event:
            case DocumentStartEvent():
                self.start_document(event, line)
            case AliasEvent():
                self.alias(str(event.anchor), line)
            case NodeEvent() if getattr(event, "ctag", None) is not None:
                self.refuse(line, f"the tag {event.ctag} cannot be used; write the value alone")  # pyright: ignore
            case ScalarEvent():
                self.scalar(event, line)
            case MappingStartEvent():
                self.open({}, event.anchor, line)
            case SequenceStartEvent():
                self.open([], event.anchor, line)
            case MappingEndEvent() | SequenceEndEvent():
                self.close()

    def start_document(self, event: DocumentStartEvent, line: int) -> None:
        if event.version not in (None, (1, 2)):
            self.refuse(line, f"YAML {'.'.join(map(str, event.version))} is asked for; recipes are YAML 1.2")
        self.documents += 1
        if self.documents > 1:
            self.refuse(line, "a second document begins (---); a recipe is one")

    def scalar(self, event: ScalarEvent, line: int) -> None:
        text = event.value
        if event.style is None:
            try:
                value = scalar(text)
            except ValueError as error:
                self.refuse(line, str(error))
        else:
            value = text
        if any("\ud800" <= character <= "\udfff" for character in text):
            self.refuse(line, "half a character (a lone surrogate) is no text")
        self.spend(1, line)
        self.add(value, line, merge=event.style is None and text == "<<")
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)

    def alias(self, name: str, line: int) -> None:
        if any(part.anchor == name for part in self.stack):
            self.refuse(line, f"*{name} stands inside &{name}: it would never end")
        if name not in self.anchors:
            self.refuse(line, f"*{name} has no anchor &{name} before it")
        value, count = self.anchors[name]
        self.spend(count, line)  # before it is copied
        self.add(copy.deepcopy(value), line)

    def open(self, value: dict[str, Any] | list[Any], anchor: str | None, line: int) -> None:
        if len(self.stack) >= DEEPEST:
            self.refuse(line, f"is nested more than {DEEPEST} deep")
        self.stack.append(_Open(value, anchor, line, self.count))
        self.spend(1, line)

    def close(self) -> None:
        done = self.stack.pop()
        self.add(done.value, done.line)
        if done.anchor:
            self.anchors[done.anchor] = (done.value, self.count - done.before)

    def spend(self, count: int, line: int) -> None:
        self.count += count
        if self.count > MOST:
            self.refuse(line, f"has more than {MOST} values")

    def add(self, value: Any, line: int, merge: bool = False) -> None:
        """Puts a finished value where it belongs."""
        if not self.stack:
            self.root = value
            return
        into = self.stack[-1]
        if isinstance(into.value, list):
            into.value.append(value)
        elif into.key is not None:
            into.value[into.key] = value
            into.key = None
        elif merge:
            self.refuse(line, "<<: is not in YAML 1.2; write the keys out")
        elif not isinstance(value, str):
            self.refuse(line, f"a key should be text; came {came(value)}; quote it if it is text")
        elif value in into.value:
            self.refuse(line, f"the key {value!r} stands twice in one mapping")
        else:
            into.key = value

    def refuse(self, line: int, why: str) -> NoReturn:
        raise ConfigError(f"{self.source}, line {line}: {why}")
