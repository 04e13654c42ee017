"""Conversations: rows of messages with a role and a content, from JSONL files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from anyformer.core.errors import InputError
from anyformer.core.roles import Tokenizer
from anyformer.core.spec import Fraction, spec
from anyformer.data.base import InFiles, Row
from anyformer.data.chat import Message, checked
from anyformer.data.reading import find
from anyformer.data.records import json_lines
from anyformer.data.table import Paths
from anyformer.data.tokenizers.bytes import Bytes

# ShareGPT's names
SPEAKERS = {"human": "user", "gpt": "assistant"}


@spec
class Conversations(InFiles):
    """A row is an object on a line of a JSONL file: its `messages`, or ShareGPT's `conversations`.

    A message has a `role` (system, user, assistant, tool) and a `content`, in ShareGPT's form `from` and `value`. The
    column `messages` holds them all as JSON. path: files and folders, found as those of `text`. validation_path: those
    that are held out, instead of a fraction. source: what the data is and where it is published.
    """

    path: Paths
    validation_path: Paths | None = None
    tokenizer: Tokenizer = Bytes()
    held_out: Fraction = 0.1
    source: str = ""

    def _rows(self, paths: Paths, field: str) -> Iterator[Row]:
        paths, found = (paths,) if isinstance(paths, str) else paths, False
        for file in (file for path in paths for file in find(path, self.source, (".jsonl",), field)):
            for number, record in json_lines(file, "strict"):
                try:
                    messages = messages_of(record)
                except InputError as error:
                    raise InputError(f"{file}, line {number}: {error}") from None
                found = True
                yield {"messages": json.dumps(messages, ensure_ascii=False)}
        if not found:
            raise InputError(f"{', '.join(paths)}: no conversation: name files that hold some")


def messages_of(record: Mapping[str, Any]) -> list[Message]:
    """The messages of a record, each with some text, and at least one of the assistant's."""
    given = record.get("messages")
    if given is None and isinstance(record.get("conversations"), list):
        given = [_named(message) for message in record["conversations"]]
    if given is None:
        raise InputError(f"has no messages and no conversations; it has: {', '.join(record)}")
    messages = checked(given)
    for number, message in enumerate(messages, 1):
        if not message["content"].strip():
            raise InputError(f"message {number} is empty: take it out, or the whole row")
    if all(message["role"] != "assistant" for message in messages):
        raise InputError("the assistant says nothing in it: take the row out")
    return messages


def _named(message: Any) -> Any:
    """A message of ShareGPT's as others write it."""
    if not isinstance(message, Mapping) or not {"from", "value"} <= message.keys():
        return message
    return {"role": SPEAKERS.get(message["from"], message["from"]), "content": message["value"]}
