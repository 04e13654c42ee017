"""Specs: plain data that builds; frozen, strict, compared by value, written as JSON.

A spec holds other specs in fields whose type is a role: `Annotated[LayerSpec | Ref, Rows("anyformer.attention")]`.
`Rows` reads `{kind: softmax, heads: 4}`, the bare name `softmax`, or an instance, and writes `kind` back: a plain dump
of a field typed by its base would silently drop the subclass's keys. This file imports no torch. It is long because
the bases, the reader of roles and the place where a part is built name each other.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self, TypeVar, dataclass_transform, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import ArgsKwargs, InitErrorDetails, PydanticCustomError, core_schema

from anyformer.core.explain import came
from anyformer.core.paths import steps
from anyformer.core.tables import home, nearest, row, table
from anyformer.core.versions import Step, forward

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyformer.core.fills import Fill
    from anyformer.core.model import Model

T = TypeVar("T")
M_co = TypeVar("M_co", covariant=True)

CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, field))
def spec(cls: type[T]) -> type[T]:
    """A frozen, keyword-only, strict dataclass that refuses keys it does not know."""
    return pydantic_dataclass(frozen=True, kw_only=True, config=CONFIG)(cls)  # pyright: ignore[reportReturnType]


@dataclass_transform(frozen_default=True, field_specifiers=(Field, field))
def positional_spec(cls: type[T]) -> type[T]:
    """The same, for the few specs whose first field needs no name: `Window(512)`."""
    return pydantic_dataclass(frozen=True, config=CONFIG)(cls)  # pyright: ignore[reportReturnType]


def _whole(value: object) -> object:
    """3e9 is a way to write a count; 2.5 is not, and is left for the integer's own error."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


LARGEST = 2**53  # the largest whole number that every JSON reader keeps exactly
Whole = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=LARGEST)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=LARGEST)]
Size = Annotated[
    int, BeforeValidator(_whole), Field(ge=1, le=2**24)
]  # of one axis of a tensor: a slip is refused early
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]  # of a running mean: how much of it each step keeps
Fraction = Annotated[float, Field(ge=0, le=1)]


@functools.cache
def adapter(role: Any) -> TypeAdapter[Any]:
    """pydantic's reader and writer of a role or of a spec class."""
    return TypeAdapter(role)


def from_dict(role: Any, tree: object) -> Any:
    """A value of a role from plain JSON-like data; raises pydantic's ValidationError (`explain` makes it one line)."""
    return adapter(role).validate_python(_tuples(tree))


def _tuples(value: Any) -> Any:
    """Plain data as a strict, frozen spec holds it: a tuple where JSON and YAML have a list."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


@pydantic_dataclass(frozen=True, config=CONFIG)
class Spec:
    """Plain data that builds.

    EXEMPT: laws that this part cannot keep, and so refuses -> why; anyformer.laws says more.
    """

    EXEMPT: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """What the laws are run on; () lets them fill the fields that are required by themselves."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-like data: all fields, and `kind` first where the class is a row of a table."""
        at = home(type(self))
        return {**({"kind": at[1]} if at else {}), **adapter(type(self)).dump_python(self, mode="json")}

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(f.name for f in dataclasses.fields(cls))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """A mapping is read by calling the class, so that there is one way in and strictness means one thing."""
        return core_schema.no_info_before_validator_function(cls._called, handler(source))

    @classmethod
    def _called(cls, given: Any) -> Any:
        return cls(**given) if isinstance(given, dict) and all(isinstance(key, str) for key in given) else given

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, given: ArgsKwargs) -> ArgsKwargs:
        """Lists become tuples; an unknown key is refused here, because pydantic does not say which keys there are."""
        names, keys = cls.fields(), given.kwargs or {}
        if not keys.keys() <= {*names}:
            unknown = [_unknown(key, value, names) for key, value in keys.items() if key not in names]
            raise ValidationError.from_exception_data(cls.__name__, unknown)
        return ArgsKwargs(_tuples(list(given.args)), _tuples(dict(keys)))


def _unknown(key: str, value: object, names: tuple[str, ...]) -> InitErrorDetails:
    context = {"allowed": ", ".join(names) or "no keys", "near": nearest(key, names)}
    error = PydanticCustomError("key", "no such key; allowed: {allowed}{near}", context)
    return InitErrorDetails(type=error, loc=(key,), input=value)


class PartSpec(Spec, ABC):
    """A spec that makes a module."""

    @abstractmethod
    def build(self, at: Site) -> nn.Module:
        """The module, made at a place in the model."""


class LayerSpec(PartSpec):
    """A Layer: mixers, feed-forwards, blocks, stacks, memories."""


class NormSpec(PartSpec):
    """Scales the stream's vectors."""


class PositionSpec(PartSpec):
    """Tells a mixer or an embedding where tokens are."""


class ResidualSpec(PartSpec):
    """Joins one part to the stream."""


class FlowSpec(PartSpec):
    """Carries the stream from block to block."""


class EmbeddingSpec(PartSpec):
    """Tokens in."""


class ModalitySpec(EmbeddingSpec):
    """Something else than token ids in; `core.modality` says how."""

    EXEMPT: ClassVar = {
        "state": "what enters comes whole, and is not cut into calls",
        "padding": "every row makes as many vectors, and all of them are there",
        "blank": "every row makes as many vectors, and all of them are there",
        "packed": "what enters comes whole, one thing a row",
    }


class HeadSpec(PartSpec):
    """The stream out."""


class DataSpec(Spec):
    """Where examples come from."""


class TokenizerSpec(Spec):
    """Text to numbers and back."""


class ObjectiveSpec(Spec):
    """What training minimises."""


class OptimizerSpec(Spec, ABC):
    """How gradients change the weights.

    lr: the rate that a schedule scales.
    """

    lr: float

    @abstractmethod
    def make(self, model: Model) -> torch.optim.Optimizer:
        """The optimiser of a model's parameters; each group holds its unscaled rate as `rate`."""

    @abstractmethod
    def state_size(self, model: Model) -> int:
        """How many numbers it keeps beside the weights; counts of steps are not worth counting."""


class ScheduleSpec(Spec, ABC):
    """How the learning rate moves."""

    @abstractmethod
    def scale(self, step: float, total: float) -> float:
        """The factor on the rate at a step, counted from 0, of a run of `total` steps; both may be estimates."""


@positional_spec
class Ref(Spec):
    """A part that was built earlier, by its path; written `{ref: body.blocks.0.mixer.position}`."""

    ref: Annotated[str, Field(pattern=r"^\w+(\.\w+)*$")]

    @property
    def path(self) -> str:
        """The owner's path."""
        return self.ref


@dataclass(frozen=True, init=False)
class Rows:
    """Annotated[Base, Rows("anyformer.attention", …)]: `kind` through the tables, both ways.

    text: reads a written form of the part, for a base whose `str` writes it (patterns). default: the kind of a mapping
    that names none.
    """

    packages: tuple[str, ...]
    text: Callable[[str], Spec] | None
    default: str | None

    def __init__(self, *packages: str, text: Callable[[str], Spec] | None = None, default: str | None = None) -> None:
        object.__setattr__(self, "packages", packages)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "default", default)

    def kinds(self) -> dict[str, str]:
        """Every name that can be written here, and the package whose row it is."""
        return {kind: package for package in self.packages for kind in table(package)}

    def find(self, kind: str) -> type[Spec]:
        """The class behind a name."""
        owners = [package for package in self.packages if kind in table(package)]
        if not owners:
            have = self.kinds()
            raise ValueError(f"no {kind!r} here; allowed: {', '.join(sorted(have))}{nearest(kind, have)}")
        if len(owners) > 1:
            raise ValueError(f"{kind!r} is claimed by {' and '.join(owners)}; uninstall one")
        found = row(owners[0], kind)
        if not issubclass(found, Spec):
            raise ValueError(f"{owners[0]}: {kind!r} is {found.__module__}.{found.__qualname__}, which is no Spec")
        return found

    def named(self, given: Any) -> Any:
        """What is written of a part, as a mapping with its kind: a bare name, or keys where there is a default."""
        if isinstance(given, str) and self.text is None:
            return {"kind": given}
        if self.default is not None and isinstance(given, dict):
            return {"kind": self.default, **given}
        return given

    def kind(self, part: Spec) -> str:
        """The name of a part's row."""
        at = home(type(part))
        if at is None or at[0] not in self.packages:
            known = f"a row of {at[0]}" if at else "in no table"
            raise ValueError(f"{type(part).__qualname__} is {known}; allowed here: {', '.join(sorted(self.kinds()))}")
        return at[1]

    def read(self, given: Any, bases: tuple[type, ...]) -> Spec:
        """A part from whatever stands in its place."""
        if isinstance(given, Spec):
            return self._own(given, bases)
        if self.text is not None and isinstance(given, str):
            return self.text(given)
        tree = self.named(given)
        if Ref in bases and isinstance(tree, dict) and "ref" in tree:
            return Ref(**tree)
        if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str):
            form = "text such as 'causal & window(512)'" if self.text else "a row's name or {kind: name, ...}"
            context = {"form": form, "allowed": ", ".join(sorted(self.kinds())), "came": came(given)}
            raise PydanticCustomError("part", "should be {form}; names: {allowed}; came {came}", context)
        return self.find(tree["kind"])(**{key: value for key, value in tree.items() if key != "kind"})

    def _own(self, part: Spec, bases: tuple[type, ...]) -> Spec:
        """An instance: of the right base, and of no table that does not belong here."""
        at = home(type(part))
        combined = self.text is not None  # And, Or and Not are patterns without a row
        if isinstance(part, bases) and (isinstance(part, Ref) or combined or at is None or at[0] in self.packages):
            return part
        context = {
            "allowed": ", ".join(sorted(self.kinds())),
            "came": came(part),
            "home": f", a row of {at[0]}" if at else "",
        }
        raise PydanticCustomError("part", "should be one of: {allowed}; came {came}{home}", context)

    def write(self, part: Spec) -> Any:
        """What `read` reads."""
        if isinstance(part, Ref):
            return {"ref": part.path}
        if self.text is not None:
            return str(part)
        return {"kind": self.kind(part), **adapter(type(part)).dump_python(part, mode="json")}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        bases = tuple(base for base in get_args(source) if isinstance(base, type)) or (source,)
        return core_schema.no_info_plain_validator_function(
            lambda given: self.read(given, bases),
            serialization=core_schema.plain_serializer_function_ser_schema(self.write),
            metadata={"ref": Ref in bases},
        )

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A mark that `anyformer.core.schema` turns into links to one definition per table."""
        return {
            "x-rows": {
                "packages": list(self.packages),
                "text": self.text is not None,
                "default": self.default,
                "ref": (core.get("metadata") or {})["ref"],
            }
        }


class InitialSpec(Spec, ABC):
    """The first weights of linear maps."""

    @abstractmethod
    def fill(self, out: int, into: int, joining: int) -> Fill:
        """Of a weight (out, into). joining: of how many maps the stream is the sum, this one among them; 1 for a map
        that does not join it.
        """


def _usual() -> InitialSpec:
    return row("anyformer.initial", "normal")()


class AdapterSpec(Spec, ABC):
    """What is learned beside the weights that a model has."""

    @abstractmethod
    def attach(self, model: Model) -> None:
        """Put it into a model that has no values yet; ConfigError where there is no place for it."""

    def begin(self, model: Model, seed: int) -> None:
        """First values that follow from the model's own weights, once it has them; none do, unless a kind says so."""


@spec
class ModelSpec(Spec, ABC):
    """A whole model: an architecture and everything in it.

    vocabulary: None lets training set it from the tokenizer. labels: names of the labels that tokens may carry.
    rank: coordinates a token. initial: the first weights of linear maps. adapters: what was put in later to be learned
    beside the weights.
    """

    VERSION: ClassVar[int] = 1
    MIGRATIONS: ClassVar[Mapping[int, Step]] = {}

    version: Count = 1
    vocabulary: Size | None = None
    width: Size
    labels: tuple[str, ...] = ()
    rank: Size = 1
    initial: Annotated[InitialSpec, Rows("anyformer.initial", default="normal")] = field(default_factory=_usual)
    adapters: tuple[Annotated[AdapterSpec, Rows("anyformer.adapters")], ...] = ()

    @abstractmethod
    def make(self, at: Site) -> Model:
        """The root module, still without values; `build` is what users call."""

    def build(self, seed: int = 0, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Model:
        """The finished model: every parameter and buffer filled, each from its own (seed, path)."""
        from anyformer.core.build import build_model

        return build_model(self, seed=seed, device=device, dtype=dtype)

    @model_validator(mode="before")
    @classmethod
    def _carried_forward(cls, given: ArgsKwargs) -> ArgsKwargs:
        return ArgsKwargs(given.args, forward(dict(given.kwargs or {}), cls.VERSION, cls.MIGRATIONS, "model"))


class Builds(Protocol[M_co]):
    """Whatever makes a module at a Site."""

    def build(self, at: Site) -> M_co: ...


@dataclass(frozen=True)
class Site:
    """Where a part is built: its path, the sizes there, and the parts built before it.

    depth: (index, of how many) along the stack. joins: the parts of a block that a residual serves.
    gain: what a residual wants the first weights of the parts beside it multiplied by. initial: the model's.
    vocabulary: tokens there are, where tokens enter and leave. rank: coordinates a token.
    heads, head_size: for parts that a mixer holds. labels, sources: the names that the model declares.
    whole: labels whose marked tokens always come in one call.
    parts: built so far, by path, shared by all Sites of one model.
    """

    path: str
    width: int
    _: KW_ONLY
    depth: tuple[int, int] = (0, 1)
    joins: tuple[str, ...] = ()
    gain: float = 1.0
    initial: InitialSpec = field(default_factory=_usual)
    vocabulary: int | None = None
    rank: int = 1
    heads: int | None = None
    head_size: int | None = None
    labels: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    parts: dict[str, Any] = field(default_factory=dict)

    def at(self, name: str, **change: Any) -> Site:
        """The place of a child; its path is the child's path in the spec and in the module."""
        return dataclasses.replace(self, path=f"{self.path}.{name}".lstrip("."), **change)

    def build(self, part: Builds[M_co] | Ref, name: str, **change: Any) -> M_co:
        """A child, built; for a Ref the part that its owner built, the same object."""
        child = self.at(name, **change)
        built = self._earlier(part.path, child.path) if isinstance(part, Ref) else part.build(child)
        self.parts[child.path] = built
        return built

    def _earlier(self, path: str, user: str) -> Any:
        if path in self.parts:
            return self.parts[path]
        through = [known for known in self.parts if steps(known) == steps(path)]
        if not through:
            raise ValueError(f"{user}: ref {path!r} is no part built before this one{nearest(path, self.parts)}")
        return self.parts[min(through, key=len)]
