"""metrics.jsonl: one JSON object a line, flushed line by line, read even when the last line is torn."""

import json
import math

NAME = "metrics.jsonl"


def line(record: dict[str, object]) -> bytes:
    """One record as a line; numbers that are not finite become null, which JSON and plots can bear."""
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read(data: bytes, notes: list[str], where: str) -> list[dict[str, object]]:
    """The records of a file; a line that cannot be read is left out and noted, a last line without its end is just
    being written."""
    records: list[dict[str, object]] = []
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        record = _record(text)
        if record is not None:
            records.append(record)
        elif text:
            notes.append(f"{where}: line {number} is damaged and left out")
    return records


def until(data: bytes, step: int) -> bytes:
    """The file as it stood at a step: later lines and a torn end are dropped, all other bytes kept."""
    kept: list[bytes] = []
    for text in data.split(b"\n")[:-1]:
        at = (_record(text) or {}).get("step")
        if not (isinstance(at, int | float) and at > step):
            kept.append(text + b"\n")
    return b"".join(kept)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(text: bytes) -> dict[str, object] | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
