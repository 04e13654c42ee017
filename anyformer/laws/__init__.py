"""The laws: what every part must keep, whatever it does; `anyformer check PART` runs them on anyone's part.

A law is a function of a `Case`, a tiny model around one part; it returns nothing, or raises `Broken` with the first
difference. The first line of its docstring is its statement. Every row of every table of parts is a case by itself.
A part has its say on its spec class, by two names that every Spec has:

    @classmethod
    def examples(cls): return (cls(size=3), cls(size=9))     # in the place of values guessed from the fields' names
    EXEMPT: ClassVar = {"state": "landmarks are means over the whole text"}     # a law, or what laws need -> why not

An exemption excuses nobody from being right: it passes only if the part refuses, with a ValueError, what the law tries.
"""

from typing import NamedTuple


class Law(NamedTuple):
    """Where a law is written. needs: "state" if it cuts the text into calls, "slack" if it takes tokens back.

    of: "part", or "pattern" for laws that only a pattern can keep or break.
    """

    at: str
    needs: tuple[str, ...] = ()
    of: str = "part"


STATE = ("state",)
SLACK = ("state", "slack")

LAWS = {
    "cut": Law("cutting:cut", STATE),
    "ragged": Law("cutting:ragged", STATE),
    "remember": Law("cutting:remember", STATE),
    "future": Law("future:future", STATE),
    "padding": Law("padding:padding"),
    "packed": Law("padding:packed"),
    "blank": Law("padding:blank"),
    "grow": Law("states:grow", STATE),
    "inplace": Law("states:inplace", STATE),
    "used": Law("states:used", STATE),
    "fork": Law("states:fork", STATE),
    "rows": Law("states:rows", STATE),
    "capacity": Law("states:capacity", STATE),
    "bounded": Law("states:bounded", STATE),
    "trim": Law("forgetting:trim", SLACK),
    "rewind": Law("forgetting:rewind", SLACK),
    "checkpoint": Law("gradients:checkpointed"),
    "calls": Law("gradients:calls", STATE),
    "slope": Law("gradients:slope"),
    "export": Law("programs:export"),
    "compile": Law("programs:compiled"),
    "dtype": Law("machines:dtype"),
    "device": Law("machines:device"),
    "json": Law("declarations:json_round_trip"),
    "override": Law("declarations:override"),
    "seed": Law("declarations:seed"),
    "shared": Law("declarations:shared"),
    "sees": Law("pairs:sees", of="pattern"),
    "reach": Law("pairs:reach", of="pattern"),
}
