"""Grouped softmax attention as the configs of Llama's kin have it, and which of its layers see only a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyformer.attention.softmax import Softmax
from anyformer.checkpoints.config import FLAG, FRACTION, SIZE, Config, Kind, one_of, or_none
from anyformer.patterns.base import And, Pattern, parse
from anyformer.patterns.causal import Causal
from anyformer.patterns.full import Full
from anyformer.patterns.window import Window
from anyformer.positions.rotary import Rotary

SLIDING, ALL = "sliding_attention", "full_attention"
MIXER_OF = "body.blocks.{i}.mixer"
PATTERN = f"{MIXER_OF}.pattern"


OR_NONE = or_none(SIZE)


def unless(usual: int) -> Kind[int | None]:
    """A size, None where it is the usual one; written in any case, for readers that do not take null."""

    def read(value: Any) -> int | None:
        return None if value is None or SIZE.read(value) == usual else value

    return Kind(SIZE.what, read, lambda size: usual if size is None else size)


def attention(
    c: Config,
    at: str,
    position: Rotary,
    *,
    kv_heads: int | None,
    size: int | None = None,
    bias: bool | None = None,
    sizes: Kind[int | None] = OR_NONE,
) -> Softmax:
    """kv_heads, size, bias: where the config does not say them; a bias of None: it has no such key.

    sizes: how the size of a head is told.
    """
    return Softmax(
        heads=c.take("num_attention_heads", SIZE, f"{at}.heads"),
        kv_heads=c.take("num_key_value_heads", or_none(SIZE), f"{at}.kv_heads", kv_heads),
        head_size=c.take("head_dim", sizes, f"{at}.head_size", size),
        bias=False if bias is None else c.take("attention_bias", FLAG, f"{at}.bias", bias),
        position=position,
        dropout=c.take("attention_dropout", FRACTION, f"{at}.dropout", 0.0),
    )


def window_of(pattern: str) -> int:
    """The size of a pattern that is a window, looking back or both ways."""
    match parse(pattern):
        case Window(size) | And((Causal(), Window(size))):
            return size
    raise ValueError


WINDOW: Kind[Pattern] = Kind(SIZE.what, lambda size: Causal() & Window(SIZE.read(size)), window_of)
# a window that looks both ways is told as a whole
AROUND: Kind[Pattern] = Kind(
    SIZE.what, lambda size: Window(SIZE.read(size) // 2 + 1), lambda text: max(1, 2 * window_of(text) - 2)
)


def _type(pattern: str) -> str:
    if pattern in (str(Causal()), str(Full())):
        return ALL
    window_of(pattern)
    return SLIDING


TYPES: Kind[str] = Kind(f"{ALL} or {SLIDING}", one_of({ALL: ALL, SLIDING: SLIDING}).read, _type)


def layer_types(c: Config, usual: Sequence[str]) -> tuple[str, ...]:
    """The type of each layer. usual: where the config does not say it."""
    return c.each("layer_types", TYPES, PATTERN, len(usual), list(usual))


def patterns(c: Config, types: Sequence[str], size: int, *, both: bool = False) -> list[Pattern]:
    """What each layer sees. size: of windows, where the config does not say it. both: they look ahead as well."""
    whole = Full() if both else Causal()
    if SLIDING not in types:
        c.ignore("sliding_window")
        return [whole] * len(types)
    near = c.take("sliding_window", AROUND if both else WINDOW, PATTERN.format(i=types.index(SLIDING)), size)
    return [near if kind == SLIDING else whole for kind in types]


def every(period: int, count: int) -> list[str]:
    """Types of layers: every `period`-th sees all, the others a window."""
    return [ALL if index % period == 0 else SLIDING for index in range(1, count + 1)]


# null: no window
SIGHT: Kind[Pattern] = Kind(
    f"{SIZE.what}, or null",
    lambda size: Causal() if size is None else WINDOW.read(size),
    lambda text: None if text == str(Causal()) else window_of(text),
)
