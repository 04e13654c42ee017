"""Rotary positions as published configs have them, in the forms of all versions.

Older files have `rope_theta`, `partial_rotary_factor` and `rope_scaling`; newer ones have all of it in
`rope_parameters`, some for each type of layer. `older` brings the newer form into the older one, which is what is
written, since every reader knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyformer.checkpoints.config import FLAG, POSITIVE, SIZE, Config, Kind, one_of, or_none, several
from anyformer.positions.rates.base import Rates
from anyformer.positions.rates.linear import Linear
from anyformer.positions.rates.llama3 import Llama3
from anyformer.positions.rates.longrope import LongRoPE, amplitude
from anyformer.positions.rates.ntk import NTK
from anyformer.positions.rates.yarn import YaRN
from anyformer.positions.rates.yarn import amplitude as yarn_amplitude
from anyformer.positions.rotary import Rotary

KINDS = one_of(
    {
        "linear": "linear",
        "dynamic": "ntk",
        "yarn": "yarn",
        "llama3": "llama3",
        "longrope": "longrope",
        "su": "longrope",
    }
)


def older(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A config with its rotary keys in the older form; those of each type of layer are left as they are."""
    made = dict(tree)
    new = made.get("rope_parameters")
    if isinstance(new, dict) and not any(isinstance(value, dict) for value in new.values()):
        del made["rope_parameters"]
        rest = dict(new)
        for key in ("rope_theta", "partial_rotary_factor"):
            if key in rest:
                made[key] = rest.pop(key)
        made["rope_scaling"] = rest
    scaling = made.get("rope_scaling")
    if isinstance(scaling, dict):
        scaling = dict(scaling)
        kind = scaling.pop("type", "default")
        scaling.setdefault("rope_type", kind)
        made["rope_scaling"] = None if scaling["rope_type"] == "default" and len(scaling) == 1 else scaling
    return made


def rotary(c: Config, at: str, context: int | None, theta: float = 10_000.0) -> Rotary:
    """All channels of a head turn."""
    return Rotary(
        theta=c.take("rope_theta", POSITIVE, f"{at}.theta", theta), scaling=scaling(c, f"{at}.scaling", context)
    )


def partial_rotary(
    c: Config, at: str, context: int | None, head_size: int, share: float, theta: float = 10_000.0
) -> Rotary:
    """A share of them does. share: where the config does not say it."""
    return Rotary(
        theta=c.take("rope_theta", POSITIVE, f"{at}.theta", theta),
        channels=c.take("partial_rotary_factor", share_of(head_size), f"{at}.channels", share),
        scaling=scaling(c, f"{at}.scaling", context),
    )


def share_of(size: int) -> Kind[int | None]:
    """A part of a head's channels; None: all of them."""

    def read(value: Any) -> int | None:
        channels = int(POSITIVE.read(value) * size)
        if not 0 < channels <= size or channels % 2:
            raise ValueError
        return None if channels == size else channels

    return Kind("the share of a head's channels that turn", read, lambda count: 1.0 if count is None else count / size)


def scaling(c: Config, at: str, context: int | None) -> Rates | None:
    """How fast pairs turn; None: as they do unscaled. context: tokens of the longest text.

    Of the two rates that look how long a text is, the lawful forms are taken, at the length of training: they give the
    published numbers for texts of that length, and `length` makes them give those of longer ones.
    """
    if c.kind(at) == "absent":
        return None
    inner = c.part("rope_scaling", None)
    if inner is None:
        return None
    kind = inner.take("rope_type", KINDS, f"{at}.kind")
    inner.given("finetuned", FLAG, False)
    if kind == "linear":
        return Linear(factor=inner.take("factor", POSITIVE, f"{at}.factor"))
    if kind == "ntk":
        if context is None:
            raise ValueError(f"{at}: a dynamic scaling needs max_position_embeddings")
        inner.given("original_max_position_embeddings", SIZE, 1)  # which nothing reads, here or there
        return NTK(factor=inner.take("factor", POSITIVE, f"{at}.factor"), trained=context, length=context)
    trained = inner.take(
        "original_max_position_embeddings",
        SIZE,
        f"{at}.trained",
        c.given("original_max_position_embeddings", or_none(SIZE), None) or context,
    )
    longer = (context or trained) / trained
    if kind == "longrope":
        times = inner.given("factor", or_none(POSITIVE), None) or longer
        usual = amplitude(times, trained)
        return LongRoPE(
            short=inner.take("short_factor", several(POSITIVE), f"{at}.short"),
            long=inner.take("long_factor", several(POSITIVE), f"{at}.long"),
            trained=trained,
            length=trained,
            amplitude=inner.take("attention_factor", or_none(POSITIVE), f"{at}.amplitude", None) or usual,
        )
    factor = inner.take("factor", POSITIVE, f"{at}.factor", longer)
    if kind == "llama3":
        low = inner.take("low_freq_factor", POSITIVE, f"{at}.low")
        return Llama3(
            factor=factor, trained=trained, low=low, high=inner.take("high_freq_factor", POSITIVE, f"{at}.high")
        )
    over, under = (inner.given(key, or_none(POSITIVE), None) for key in ("mscale", "mscale_all_dim"))
    ratio = yarn_amplitude(factor, over) / yarn_amplitude(factor, under) if over and under else None
    return YaRN(
        factor=factor,
        trained=trained,
        fast=inner.take("beta_fast", or_none(POSITIVE), f"{at}.fast", None) or 32.0,
        slow=inner.take("beta_slow", or_none(POSITIVE), f"{at}.slow", None) or 1.0,
        rounded=inner.take("truncate", FLAG, f"{at}.rounded", True),
        amplitude=inner.take("attention_factor", or_none(POSITIVE), f"{at}.amplitude", None) or ratio,
    )
