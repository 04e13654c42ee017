"""What is found when a law is run on a case: it holds, the case is exempt and refuses, or it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from anyformer.laws import LAWS
from anyformer.laws.broken import Broken
from anyformer.laws.case import Case
from anyformer.patterns.base import Pattern


@dataclass(frozen=True)
class Verdict:
    """text: why the case is exempt, or the first difference. error: what was raised, for who wants the traceback."""

    case: str
    law: str
    outcome: Literal["ok", "exempt", "FAILED"]
    text: str = ""
    error: Exception | None = None


def laws_of(case: Case) -> list[str]:
    """The laws that can be run on a case."""
    return [name for name, law in LAWS.items() if law.of == "part" or isinstance(case.part, Pattern)]


def statement(law: str) -> str:
    """What a law says, in one sentence."""
    return (_law(law).__doc__ or "").partition("\n")[0]


def judge(case: Case, law: str) -> Verdict:
    """Run one law on one case."""
    reasons = [case.exempt[key] for key in (law, *LAWS[law].needs) if key in case.exempt]
    try:
        _law(law)(case)
    except Broken as broken:
        return Verdict(case.name, law, "FAILED", str(broken), broken)
    except ValueError as refusal:
        if reasons:
            return Verdict(case.name, law, "exempt", reasons[0])
        advice = f"if it must, declare EXEMPT = {{{_what(case, law)!r}: why}}"
        return Verdict(case.name, law, "FAILED", f"refused: {refusal}; {advice}", refusal)
    except Exception as error:  # anyone's part may raise anything; the other laws still count
        return Verdict(case.name, law, "FAILED", f"raised {type(error).__name__}: {error}", error)
    if reasons:
        return Verdict(
            case.name, law, "FAILED", f"declared exempt ({reasons[0]}), but the law holds: nothing is refused"
        )
    return Verdict(case.name, law, "ok")


def _what(case: Case, law: str) -> str:
    """What is refused: a state altogether, or this law alone."""
    try:
        case.state()
    except ValueError:
        return "state"
    return law


def _law(name: str) -> Callable[[Case], None]:
    module, _, function = LAWS[name].at.partition(":")
    return getattr(import_module(f"anyformer.laws.{module}"), function)
