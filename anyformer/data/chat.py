"""Chat templates: a conversation as the text, and as the tokens, that a model was taught to go on from.

A template is Jinja that comes with a tokenizer. It writes the marks between messages, and all special tokens: none is
added to what it gives, so that no text begins twice. It is rendered as Transformers' `apply_chat_template` does, in a
sandbox, with limits: see `jinja`. What reads like a special token inside of a message is plain text, and no mark.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from anyformer.core.errors import InputError
from anyformer.core.explain import came
from anyformer.core.tables import nearest
from anyformer.data.jinja import renderer

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer

Message = Mapping[str, str]  # role, content, and what else a template may ask for
Offsets = list[tuple[int, int]]

ROLES = ("system", "user", "assistant", "tool")
LARGEST = 2**20  # bytes of a template; those of published models have some thousands
PROBE, NEXT = "An answer.", "Another question."
TRIED = ({"role": "user", "content": "A question."}, {"role": "assistant", "content": PROBE})
UNUSED = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))  # characters that no text has a use for

CHATML = """\
{{ bos_token }}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
{%- else %}
{{- message['content'] + '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
SHIPPED = {"chatml": CHATML}


@dataclass(frozen=True)
class ChatTemplate:
    """source: Jinja. tokens: what it may call `bos_token`, `eos_token` and so on. where: it is from, for messages."""

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    where: str = "the chat template"

    def __post_init__(self) -> None:
        if len(self.source) > LARGEST:
            raise InputError(f"{self.where} has {len(self.source):,} characters; a chat template has a few thousand")

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides what a conversation becomes."""
        return hashlib.sha256(repr((self.source, sorted(self.tokens.items()))).encode()).hexdigest()

    def write(self, messages: Sequence[Message], *, ask: bool = False) -> str:
        """A conversation as text. ask: up to where the assistant's next message begins."""
        return self._rendered(checked(messages), ask)[0]

    def encode(self, messages: Sequence[Message], tokenizer: TextTokenizer, *, ask: bool = False) -> list[int]:
        """A conversation as tokens. ask: up to where the assistant's next message begins."""
        quoted, mark = _quoted(checked(messages), tokenizer)
        return _encoded(self._rendered(quoted, ask)[0], mark, tokenizer)[0]

    def said(self, messages: Sequence[Message], tokenizer: TextTokenizer) -> tuple[list[int], list[bool]]:
        """The tokens of a conversation, and which of them the assistant says, up to the end of each of its turns.

        A template that has `generation` blocks says it itself; another writes every conversation as a longer one
        begins, or it is refused.
        """
        quoted, mark = _quoted(checked(messages), tokenizer)
        text, spans = self._rendered(quoted, False)
        if "endgeneration" not in self.source:
            spans = self._found(quoted, text)
        ids, offsets = _encoded(text, mark, tokenizer)
        mask = [any(start < last and end > first for first, last in spans) for start, end in offsets]
        return ids, mask

    def ends(self, tokenizer: TextTokenizer) -> tuple[frozenset[int], tuple[str, ...]]:
        """What ends a turn of the assistant's: a token, or, where that is no token of its own, a text.

        Space alone is part of many an answer: then it is how the next turn begins.
        """
        closing = self._closing[0].strip()
        if not closing:
            text, _ = self._rendered([*TRIED, {"role": "user", "content": NEXT}], False)
            closing = text.rpartition(PROBE)[2].partition(NEXT)[0].rstrip()
            return frozenset(), (closing,) if closing else ()
        first = tokenizer.encode(closing, special=True)[0]
        return (frozenset({first}), ()) if first in tokenizer.special else (frozenset(), (closing,))

    def _rendered(self, messages: Sequence[Message], ask: bool) -> tuple[str, list[tuple[int, int]]]:
        names = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": ask, **self.tokens}
        return renderer(self.source).render(names, self.where)

    @cached_property
    def _closing(self) -> tuple[str, str]:
        """What stands after an answer that the assistant writes itself, and the space behind it."""
        _, found, after = self._rendered(TRIED, False)[0].rpartition(PROBE)
        if not found:
            raise InputError(f"{self.where}: it leaves out what the assistant says")
        closing = after.rstrip() or after
        return closing, after[len(closing) :]

    def _found(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """From where to where the assistant's messages go: from what a model is asked to the end of the turn."""
        spans, (closing, space) = [], self._closing
        for count, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked, _ = self._rendered(messages[:count], True)
            whole, _ = self._rendered(messages[: count + 1], False)
            if not text.startswith(whole) or not whole.startswith(asked):
                raise InputError(
                    f"{self.where}: message {count + 1} is written in another way once more is known, so that what the "
                    "assistant says cannot be told apart: put {% generation %} … {% endgeneration %} around it in the "
                    "template, or end the conversation there"
                )
            spans.append((len(asked), len(whole) - len(space) * whole.endswith(closing + space)))
        return spans


def checked(messages: object) -> list[Message]:
    """Messages as a template may have them; what is None is not there."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError(f"a conversation should be a list of messages; came {came(messages)}")
    found = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise InputError(f"message {number} should have a role and a content; came {came(message)}")
        known = {str(name): value for name, value in message.items() if value is not None}
        for name in ("role", "content", *known):
            if not isinstance(known.get(name), str):
                raise InputError(f"message {number}: its {name} should be text; came {came(known.get(name))}")
        if known["role"] not in ROLES:
            raise InputError(
                f"message {number} has the role {known['role'][:40]!r}; those known are {', '.join(ROLES)}"
                f"{nearest(known['role'], ROLES)}"
            )
        found.append(known)
    return found


def template_text(name: str) -> str:
    """The source of a shipped template, or of a file; what holds a brace is a source already."""
    if name in SHIPPED or "{" in name:
        return SHIPPED.get(name, name)
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{name}: no such file, and no template of that name; there is {', '.join(SHIPPED)}")
    return read_template(path)


def read_template(path: Path) -> str:
    """The source in a file."""
    if (size := path.stat().st_size) > LARGEST:
        raise InputError(f"{path} has {size:,} bytes; a chat template has a few thousand")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 after {error.start} bytes") from None


def speaking(tokenizer: TextTokenizer, template: str | None, where: str = "the chat template") -> TextTokenizer:
    """The same tokenizer with a template. template: a shipped name, a file or a source; None: the one it has."""
    if template is None:
        if tokenizer.chat is None:
            raise InputError(
                "the model comes without a chat template: name one, such as chatml, or the file that it was made with"
            )
        return tokenizer
    tokens = tokenizer.names if tokenizer.chat is None else tokenizer.chat.tokens
    return tokenizer.with_chat(ChatTemplate(template_text(template), tokens, where))


def _quoted(messages: Sequence[Message], tokenizer: TextTokenizer) -> tuple[Sequence[Message], str]:
    """Messages with a mark around what reads like a special token, and the mark; "" where nothing does."""
    find = re.compile(_any_of(tokenizer) or "(?!)")
    texts = "".join(value for message in messages for value in message.values())
    if not find.search(texts):
        return messages, ""
    mark = next((chr(number) for number in UNUSED if chr(number) not in texts), None)
    if mark is None:
        raise InputError("the conversation holds every character that Unicode leaves to private use")
    return [{name: find.sub(rf"{mark}\g<0>{mark}", value) for name, value in m.items()} for m in messages], mark


def _any_of(tokenizer: TextTokenizer) -> str:
    """A pattern of what reads like a special token, the longest first; "" where there is none."""
    return "|".join(map(re.escape, sorted(tokenizer.controls, key=len, reverse=True)))


def _encoded(text: str, mark: str, tokenizer: TextTokenizer) -> tuple[list[int], Offsets]:
    """The tokens of a text without its marks, and the characters that each stands for: text[start:end].

    What stands between two marks is plain text. Pieces after the first are encoded behind a line break, which is taken
    off again: at the start of a text some tokenizers write a space.
    """
    if not mark:
        return tokenizer.encode_with_offsets(text, special=True)
    pieces: list[tuple[int, int, bool]] = []
    at = 0
    for found in re.finditer(f"{mark}({_any_of(tokenizer)}){mark}|{mark}", text):
        pieces.append((at, found.start(), True))
        if found[1] is not None:
            pieces.append((*found.span(1), False))
        at = found.end()
    pieces.append((at, len(text), True))
    ids: list[int] = []
    offsets: Offsets = []
    line = tokenizer.encode("\n")
    for start, end, special in pieces:
        if start == end:
            continue
        some, places = tokenizer.encode_with_offsets(f"\n{text[start:end]}", special=special)
        skip, shift = len(line), start - 1
        if not start or some[:skip] != line:
            some, places = tokenizer.encode_with_offsets(text[start:end], special=special)
            skip, shift = 0, start
        ids += some[skip:]
        offsets += [(first + shift, last + shift) for first, last in places[skip:]]
    return ids, offsets
