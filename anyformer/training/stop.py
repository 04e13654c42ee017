"""How a run is asked to stop: the first interrupt, termination or hang-up lets it save, the second stops it now."""

from __future__ import annotations

import signal
import threading
from types import FrameType

ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """`with StopRequest() as asked: … if asked.signal: …`; outside the main thread nothing can be asked."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in ASKS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            self.__exit__()
            signal.raise_signal(number)  # somebody insists: it does what it did before we listened
        self.signal = number
