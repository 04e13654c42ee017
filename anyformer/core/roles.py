"""Roles: the type of a field that holds a part, each a base and the tables whose rows may stand there.

Only strings name the tables, so that a role in `core` knows of no package above it.
"""

from typing import Annotated

from anyformer.core.spec import (
    AdapterSpec,
    DataSpec,
    EmbeddingSpec,
    FlowSpec,
    HeadSpec,
    LayerSpec,
    ModelSpec,
    NormSpec,
    ObjectiveSpec,
    OptimizerSpec,
    PositionSpec,
    Ref,
    ResidualSpec,
    Rows,
    ScheduleSpec,
    TokenizerSpec,
)

Mixer = Annotated[LayerSpec | Ref, Rows("anyformer.attention", "anyformer.memory")]
FeedForward = Annotated[LayerSpec | Ref, Rows("anyformer.feedforward")]
AnyLayer = Annotated[
    LayerSpec | Ref,
    Rows("anyformer.blocks", "anyformer.memory", "anyformer.attention", "anyformer.feedforward"),
]
Norm = Annotated[NormSpec | Ref, Rows("anyformer.norms")]
Position = Annotated[PositionSpec | Ref, Rows("anyformer.positions")]
Residual = Annotated[ResidualSpec | Ref, Rows("anyformer.residuals")]
Flow = Annotated[FlowSpec | Ref, Rows("anyformer.flows")]
Embedding = Annotated[EmbeddingSpec | Ref, Rows("anyformer.embeddings")]
Head = Annotated[HeadSpec | Ref, Rows("anyformer.heads")]

Data = Annotated[DataSpec, Rows("anyformer.data")]
Tokenizer = Annotated[TokenizerSpec, Rows("anyformer.data.tokenizers")]
Objective = Annotated[ObjectiveSpec, Rows("anyformer.training.objectives")]
Optimizer = Annotated[OptimizerSpec, Rows("anyformer.training.optimizers", default="adamw")]
Schedule = Annotated[ScheduleSpec, Rows("anyformer.training.schedules")]
Adapter = Annotated[AdapterSpec, Rows("anyformer.adapters")]
AnyModel = Annotated[ModelSpec, Rows("anyformer.architectures")]
