"""What a recipe is: the model, and everything about its training. Strict, frozen, plain data."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from anyformer.core.roles import Adapter, AnyModel, Data, Objective, Optimizer, Schedule
from anyformer.core.schema import schema
from anyformer.core.spec import Count, Decay, ModelSpec, Positive, Size, Spec, Whole, from_dict, spec
from anyformer.core.versions import Step


@spec
class Budget(Spec):
    """When training ends: at the first of these that is reached.

    flops: of the matrix products of training, three times the forward pass's (four with checkpointing).
    """

    steps: Count | None = None
    tokens: Count | None = None
    seconds: Positive | None = None
    flops: Positive | None = None

    @model_validator(mode="after")
    def _some(self) -> Budget:
        if self.steps is None and self.tokens is None and self.seconds is None and self.flops is None:
            raise ValueError("says nothing; set steps, tokens, seconds or flops")
        return self


@spec
class Training(Spec):
    """How a step is made.

    batch: rows a step and device, `accumulate` times over before the weights move. length: tokens a row.
    clip: the largest norm of the gradient. checkpointing: activations are computed again instead of kept.
    ema: how much of the running mean of the weights each step keeps; the mean is what is evaluated and written.
    train: paths of the weights that alone are trained, or, where the recipe adapts, beside what that adds. freeze: of
    those that are not.
    """

    batch: Size = 32
    length: Size = 256
    accumulate: Size = 1
    clip: Positive | None = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: Literal["auto", "never", "always"] = "auto"
    checkpointing: bool = False
    ema: Decay | None = None
    train: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    device: Annotated[str, Field(pattern=r"^[a-z]+(:\d+)?$")] = "auto"


@spec
class Evaluate(Spec):
    """every: steps between two measurements on held-out data. batches: of them, None for all there are."""

    every: Count = 250
    batches: Count | None = 20


@spec
class Snapshots(Spec):
    """every: steps between two snapshots. keep: how many of the newest stay.

    average: how many of the newest are averaged into the final weights (Vaswani et al. 2017: 5); None: only the last.
    """

    every: Count = 250
    keep: Count = 2
    average: Count | None = None

    @model_validator(mode="after")
    def _kept(self) -> Snapshots:
        if self.average is not None and self.average > self.keep:
            raise ValueError(f"average ({self.average}) needs as many to be kept; keep is {self.keep}")
        return self


@spec
class Settings(Spec):
    """Everything but the model: it can be checked without importing torch."""

    VERSION: ClassVar[int] = 1
    MIGRATIONS: ClassVar[dict[int, Step]] = {}

    data: Data
    objective: Objective = Field(default_factory=partial(from_dict, Objective, "next_token"))
    optimizer: Optimizer = Field(default_factory=partial(from_dict, Optimizer, "adamw"))
    schedule: Schedule = Field(default_factory=partial(from_dict, Schedule, "cosine"))
    budget: Budget
    training: Training = Training()
    evaluate: Evaluate = Evaluate()
    snapshots: Snapshots = Snapshots()
    seed: Whole = 0
    version: Count = 1

    @model_validator(mode="after")
    def _one_mean(self) -> Settings:
        if self.training.ema is not None and self.snapshots.average is not None:
            raise ValueError("training.ema and snapshots.average are two ways to average weights; take one of them")
        return self


@spec
class Recipe(Settings):
    """One training run.

    weights: the folder whose weights it starts from, where `model.load` names one. adapt: what is put into the model to
    be trained in the place of its own weights, which stay.
    """

    model: AnyModel
    weights: str | None = None
    adapt: Adapter | None = None

    @property
    def adapted(self) -> ModelSpec:
        """The declaration of what is trained: the model with what `adapt` puts in."""
        return self.model if self.adapt is None else replace(self.model, adapters=(*self.model.adapters, self.adapt))

    @model_validator(mode="after")
    def _one_choice(self) -> Recipe:
        if self.adapt is not None and self.training.freeze:
            raise ValueError("adapt freezes all but what it adds; training.train says what is trained beside it")
        return self


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, for editors; a model may also be a preset or what a run holds."""
    made = schema(Recipe)
    made["properties"]["model"] = {"anyOf": [made["properties"]["model"], _from("preset"), _from("load")]}
    return made


def _from(key: str) -> dict[str, Any]:
    properties = {key: {"type": "string"}, "set": {"type": "object"}}
    return {"type": "object", "properties": properties, "required": [key], "additionalProperties": False}
