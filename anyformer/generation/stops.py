"""Stop strings: text as it comes is held back while its end may still become one, and cut where one begins.

They are looked for in decoded text, so the borders of tokens do not matter. Whichever is complete first ends the text;
of those that are complete at once, the longest.
"""

from __future__ import annotations

from collections.abc import Sequence


class Stops:
    """One text in the making; each text needs its own."""

    def __init__(self, stop: str | Sequence[str] = ()) -> None:
        self.texts = (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(self.texts):
            raise ValueError("a stop string must have at least one character")
        self.held = ""
        self.over = False

    def push(self, text: str) -> str:
        """What may be shown after this piece."""
        if self.over:
            return ""
        self.held += text
        found = [(at + len(stop), at) for stop in self.texts if (at := self.held.find(stop)) >= 0]
        self.over = bool(found)
        shown = min(found)[1] if found else len(self.held) - max(map(self._begun, self.texts), default=0)
        text, self.held = self.held[:shown], "" if found else self.held[shown:]
        return text

    def flush(self) -> str:
        """What was held back, at the end."""
        text, self.held = self.held, ""
        return text

    def _begun(self, stop: str) -> int:
        """How many characters at the end are the beginning of this one."""
        most = min(len(stop) - 1, len(self.held))
        return next((size for size in range(most, 0, -1) if self.held.endswith(stop[:size])), 0)
