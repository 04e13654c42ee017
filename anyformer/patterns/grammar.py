"""The grammar of patterns, both ways: text to value by recursive descent (never `eval`), value to text.

any     = every ("|" every)*
every   = one ("&" one)*
one     = "~" one | "(" any ")" | name [ "(" [ argument ("," argument)* [","] ] ")" ]
argument= value | name "=" value                      one value without a name, the first; it is the first field
value   = number | "text" | name | true | false | null | "[" values "]"
name    = [a-z][a-z0-9_]*

`&` and `|` flatten and defaults are not written, so that text -> value -> text and value -> text -> value are stable.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from pydantic import ValidationError

from anyformer.core.explain import explain
from anyformer.core.spec import Spec, from_dict
from anyformer.core.tables import kind_of, nearest, row, table
from anyformer.patterns.base import And, Not, Or, Pattern

TABLE = "anyformer.patterns"
DEEPEST = 50  # brackets within brackets; nobody means more
LONGEST = 10_000
WORDS = {"true": True, "false": False, "null": None}
NAME = re.compile(r"[a-z][a-z0-9_]*")
WORD = re.compile(r"[A-Za-z_]\w*")  # what was meant as a name: a wrong one is told the nearest
TOKEN = re.compile(r'\s*(?:([A-Za-z_]\w*|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|"(?:[^"\\]|\\.)*"|[&|~(),=\[\]])|(\S)|$)')


def write(pattern: Pattern) -> str:
    """The text that `Parser` reads as the same pattern."""
    match pattern:
        case Or(parts):
            return " | ".join(map(write, parts))
        case And(parts):
            return " & ".join(_bracketed(part, Or) for part in parts)
        case Not(part):
            return f"~{_bracketed(part, And, Or)}"
    arguments = _arguments(pattern)
    return kind_of(TABLE, pattern) + (f"({', '.join(arguments)})" if arguments else "")


def _bracketed(pattern: Pattern, *looser: type[Pattern]) -> str:
    return f"({write(pattern)})" if isinstance(pattern, looser) else write(pattern)


def _arguments(pattern: Pattern) -> list[str]:
    """Every field that is away from its default; the first needs no name."""
    tree = pattern.to_dict()
    names = type(pattern).fields()
    fields = type(pattern).__pydantic_fields__  # pyright: ignore[reportAttributeAccessIssue]
    told = [
        name for name in names if fields[name].is_required() or getattr(pattern, name) != fields[name].get_default()
    ]
    return [_value(tree[name]) if name == names[0] else f"{name}={_value(tree[name])}" for name in told]


def _value(value: Any) -> str:
    if isinstance(value, str) and NAME.fullmatch(value) and value not in WORDS:
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)


class Token(NamedTuple):
    text: str  # "" at the end
    column: int  # from 1


class Parser:
    """Reads one pattern from a text."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ValueError(f"a pattern has at most {LONGEST} characters; came {len(text)}")
        self.text = text
        self.at = 0
        self.depth = 0
        self.tokens: list[Token] = []
        for match in TOKEN.finditer(text):
            good, bad = match.group(1), match.group(2)
            if bad:
                raise self.error(f"{bad!r} is no part of a pattern", match.start(2) + 1)
            if good:
                self.tokens.append(Token(good, match.start(1) + 1))
        self.tokens.append(Token("", len(text) + 1))

    def pattern(self) -> Pattern:
        """The whole text as one pattern."""
        pattern = self.any()
        self.expect("", "`&`, `|` or the end")
        return pattern

    def any(self) -> Pattern:
        parts = [self.every()]
        while self.took("|"):
            parts.append(self.every())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def every(self) -> Pattern:
        parts = [self.one()]
        while self.took("&"):
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def one(self) -> Pattern:
        token = self.next
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(f"more than {DEEPEST} brackets or `~` within each other", token.column)
        if self.took("~"):
            pattern = Not(self.one())
        elif self.took("("):
            pattern = self.any()
            self.expect(")", "`&`, `|` or `)`")
        else:
            pattern = self.named()
        self.depth -= 1
        return pattern

    def named(self) -> Pattern:
        token = self.next
        if not WORD.fullmatch(token.text):
            raise self.error(f"a pattern's name, `~` or `(` should stand here; came {self.shown(token)}", token.column)
        names = table(TABLE)
        if token.text not in names:
            known = f"there are: {', '.join(sorted(names))}{nearest(token.text.lower(), names)}"
            raise self.error(f"no pattern {token.text!r}; {known}", token.column)
        self.at += 1
        cls = row(TABLE, token.text)
        fields = self.arguments(token.text, cls) if self.took("(") else {}
        try:
            return from_dict(cls, fields)
        except ValidationError as error:
            raise self.error(f"{token.text}: {explain(error)}", token.column) from None

    def arguments(self, name: str, cls: type[Spec]) -> dict[str, Any]:
        """What stands between the brackets, by field."""
        given: dict[str, Any] = {}
        while not self.took(")"):
            key = self.next
            if self.tokens[min(self.at + 1, len(self.tokens) - 1)].text == "=":
                self.at += 2
                field = key.text
            elif given or not cls.fields():
                takes = f"{name} takes: {', '.join(cls.fields()) or 'nothing'}"
                raise self.error(f"only the first value may stand without its name; {takes}", key.column)
            else:
                field = cls.fields()[0]
            if field in given:
                raise self.error(f"{field} is given twice", key.column)
            given[field] = self.value()
            if self.next.text != ")":
                self.expect(",", "`,` or `)`")
        return given

    def value(self) -> Any:
        if self.took("["):
            values = []
            while not self.took("]"):
                values.append(self.value())
                if self.next.text != "]":
                    self.expect(",", "`,` or `]`")
            return values
        token = self.next
        self.at += 1
        if NAME.fullmatch(token.text):
            return WORDS.get(token.text, token.text)
        try:
            return json.loads(token.text)
        except ValueError:
            raise self.error(f"a value should stand here; came {self.shown(token)}", token.column) from None

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def took(self, text: str) -> bool:
        """Steps over the next token if it is this one."""
        found = self.next.text == text
        self.at += found
        return found

    def expect(self, text: str, allowed: str) -> None:
        token = self.next
        if token.text != text:
            raise self.error(f"{allowed} should stand here; came {self.shown(token)}", token.column)
        self.at += bool(text)

    def shown(self, token: Token) -> str:
        return repr(token.text) if token.text else "the end"

    def error(self, message: str, column: int) -> ValueError:
        """One line with the column, and the text around it with a mark where it went wrong."""
        near = f"{self.text[max(0, column - 21) : column - 1]}▸{self.text[column - 1 : column + 19]}"
        return ValueError(f"pattern {near!r}, column {column}: {message}")
