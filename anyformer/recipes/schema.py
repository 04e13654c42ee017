"""What a recipe is: the model, and everything about its training. Strict, frozen, plain data."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from anyformer.core.roles import AnyModel, Data, Objective, Schedule
from anyformer.core.schema import schema
from anyformer.core.spec import Count, Positive, Size, Spec, Whole, from_dict, spec
from anyformer.core.versions import Step

Decay = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]


@spec
class Optimizer(Spec):
    """AdamW (Loshchilov & Hutter 2019)."""

    lr: Positive = 1e-3
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: NotNegative = 0.1
    eps: Positive = 1e-8


@spec
class Budget(Spec):
    """When training ends: at the first of these that is reached."""

    steps: Count | None = None
    tokens: Count | None = None
    seconds: Positive | None = None

    @model_validator(mode="after")
    def _some(self) -> Budget:
        if self.steps is None and self.tokens is None and self.seconds is None:
            raise ValueError("says nothing; set steps, tokens or seconds")
        return self


@spec
class Training(Spec):
    """How a step is made.

    batch: rows a step and device, `accumulate` times over before the weights move. length: tokens a row.
    clip: the largest norm of the gradient. checkpointing: activations are computed again instead of kept.
    """

    batch: Size = 32
    length: Size = 256
    accumulate: Size = 1
    clip: Positive | None = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: Literal["auto", "never", "always"] = "auto"
    checkpointing: bool = False
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    device: Annotated[str, Field(pattern=r"^[a-z]+(:\d+)?$")] = "auto"


@spec
class Evaluate(Spec):
    """every: steps between two measurements on held-out data. batches: of them, None for all there are."""

    every: Count = 250
    batches: Count | None = 20


@spec
class Snapshots(Spec):
    """every: steps between two snapshots. keep: how many of the newest stay."""

    every: Count = 250
    keep: Count = 2


@spec
class Settings(Spec):
    """Everything but the model: it can be checked without importing torch."""

    VERSION: ClassVar[int] = 1
    MIGRATIONS: ClassVar[dict[int, Step]] = {}

    data: Data
    objective: Objective = Field(default_factory=partial(from_dict, Objective, "next_token"))
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Field(default_factory=partial(from_dict, Schedule, "cosine"))
    budget: Budget
    training: Training = Training()
    evaluate: Evaluate = Evaluate()
    snapshots: Snapshots = Snapshots()
    seed: Whole = 0
    version: Count = 1


@spec
class Recipe(Settings):
    """One training run. weights: the folder whose weights it starts from, where `model.load` names one."""

    model: AnyModel
    weights: str | None = None


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, for editors; a model may also be a preset or what a run holds."""
    made = schema(Recipe)
    made["properties"]["model"] = {"anyOf": [made["properties"]["model"], _from("preset"), _from("load")]}
    return made


def _from(key: str) -> dict[str, Any]:
    properties = {key: {"type": "string"}, "set": {"type": "object"}}
    return {"type": "object", "properties": properties, "required": [key], "additionalProperties": False}
