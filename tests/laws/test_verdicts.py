"""How laws judge: exemptions have to be refusals, examples are guessed or the part's own, and parts may raise."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from anyformer.core.context import Context
from anyformer.core.layer import Layer, Stateless
from anyformer.core.spec import LayerSpec, Site, Size, Spec, spec
from anyformer.core.state import Past, Room
from anyformer.laws import LAWS
from anyformer.laws.broken import Broken, agree, refuses
from anyformer.laws.case import Case
from anyformer.laws.cases import all_cases, cases_of
from anyformer.laws.guess import guess
from anyformer.laws.verdict import judge, laws_of, statement


class Mean(Layer):
    """The mean over the whole text: uncuttable, and says so."""

    def init_state(self, room: Room) -> Past:
        raise ValueError(f"{self.path}: a mean over the whole text cannot be cut")

    def rewind(self, past: Past, until: Tensor) -> Past:
        return past

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        real = ctx.where.real[..., None]
        total = (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
        return total.expand_as(x), state


class SilentMean(Stateless):
    """The same, wrongly cut: every call has its own mean."""

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        return x.mean(1, keepdim=True).expand_as(x), state


@spec
class Honest(LayerSpec):
    EXEMPT: ClassVar = {"state": "a mean over the whole text"}

    def build(self, at: Site) -> Layer:
        return Mean(at)


@spec
class Undeclared(LayerSpec):
    def build(self, at: Site) -> Layer:
        return Mean(at)


@spec
class Wrong(LayerSpec):
    EXEMPT: ClassVar = {"cut": "would rather not"}

    def build(self, at: Site) -> Layer:
        return SilentMean(at)


@spec
class Needless(LayerSpec):
    EXEMPT: ClassVar = {"future": "would rather not"}

    def build(self, at: Site) -> Layer:
        return Identity(at)


class Identity(Stateless):
    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        return x, state


@spec
class Failing(LayerSpec):
    def build(self, at: Site) -> Layer:
        return Raising(at)


class Raising(Stateless):
    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        raise RuntimeError("size mismatch")


@spec
class Misspelt(LayerSpec):
    EXEMPT: ClassVar = {"futur": "a slip"}

    def build(self, at: Site) -> Layer:
        return Identity(at)


@spec
class Sized(LayerSpec):
    """heads is a name that is known, other is not: any small number will do."""

    heads: Size
    other: Size
    label: str

    def build(self, at: Site) -> Layer:
        return Identity(at)


@spec
class Own(LayerSpec):
    other: dict[str, int]

    @classmethod
    def examples(cls) -> "tuple[Own, ...]":
        return (cls(other={"a": 1}), cls(other={}))

    def build(self, at: Site) -> Layer:
        return Identity(at)


def only(cls: type[Spec]) -> Case:
    (case,) = cases_of(cls, cls.__name__)
    return case


def test_a_refusal_that_was_declared_is_exempt() -> None:
    verdict = judge(only(Honest), "cut")
    assert (verdict.outcome, verdict.text) == ("exempt", "a mean over the whole text")


def test_a_refusal_that_was_not_declared_fails_and_says_how_to_declare_it() -> None:
    verdict = judge(only(Undeclared), "cut")
    assert verdict.outcome == "FAILED"
    assert "cannot be cut" in verdict.text and "EXEMPT = {'state': why}" in verdict.text


def test_an_exemption_does_not_excuse_wrong_numbers() -> None:
    assert judge(only(Wrong), "cut").outcome == "FAILED"


def test_an_exemption_from_what_holds_fails() -> None:
    verdict = judge(only(Needless), "future")
    assert verdict.outcome == "FAILED" and "nothing is refused" in verdict.text


def test_other_errors_of_a_part_fail_its_laws_alone() -> None:
    verdict = judge(only(Failing), "cut")
    assert (verdict.outcome, verdict.text) == ("FAILED", "raised RuntimeError: size mismatch")


def test_a_law_that_is_not_there_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match=r"Misspelt.EXEMPT: there is no law \['futur'\]; there are: cut, "):
        only(Misspelt)


def test_examples_are_guessed_or_the_parts_own() -> None:
    assert guess(Sized) == Sized(heads=4, other=3, label="kind")
    assert [case.name for case in cases_of(Own, "own")] == ["own-0", "own-1"]
    with pytest.raises(ValueError, match=r"Other.other: no value is known .* a classmethod `examples`"):
        guess(Other)


@spec
class Other(LayerSpec):
    other: dict[str, int]

    def build(self, at: Site) -> Layer:
        return Identity(at)


def test_every_law_says_what_it_is_in_one_line() -> None:
    for law in LAWS:
        assert statement(law).endswith("."), law


def test_every_row_of_every_table_of_parts_is_a_case() -> None:
    from anyformer.core.tables import table
    from anyformer.laws.cases import TABLES

    names = {case.name for case in all_cases()}
    for name in TABLES:
        for kind in table(f"anyformer.{name}"):
            assert any(case.startswith(f"{name}.{kind}") for case in names)


def test_pattern_laws_are_for_patterns() -> None:
    assert "reach" not in laws_of(only(Honest))


def test_the_first_difference_is_named() -> None:
    want = torch.zeros(2, 3)
    got = want.clone()
    got[1, 2] = 0.5
    with pytest.raises(Broken, match=r"here: at \[1, 2\] it is 0.5, not 0; 1 of 6 differ, by up to 0.5"):
        agree(got, want, "here")
    with pytest.raises(Broken, match="nan"):
        agree(want * float("nan"), want, "here")
    with pytest.raises(Broken, match="shape"):
        agree(want[:1], want, "here")


def test_nothing_refused_is_broken() -> None:
    with pytest.raises(Broken, match="one more: nothing was refused"):
        refuses(lambda: None, "one more")
