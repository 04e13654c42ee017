"""Next token (Phuong & Hutter 2022, algorithm 13): -log of each token's probability given those before it.

Where the model tells documents apart, a document's first token is not predicted from the one before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyformer.core.errors import ConfigError
from anyformer.core.spec import ObjectiveSpec, spec

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model


@spec
class NextToken(ObjectiveSpec):
    """Every token from those before it (Phuong & Hutter 2022)."""

    def check(self, model: Model) -> None:
        """Refuse a model in which tokens see what they are to predict."""
        try:
            model.init_state(1)  # what lets tokens see later ones cannot be cut into calls, and says so
        except ValueError as error:
            raise ConfigError(f"next_token predicts each token from those before it; {error}") from None

    def losses(
        self, model: Model, ids: Tensor, documents: Tensor | None = None, checkpoint: bool = False
    ) -> tuple[Tensor, Tensor]:
        """ids, documents: (B, T + 1). Nats (B, T), 0 where nothing is predicted, and where something is, (B, T)."""
        from anyformer.core.model import IGNORED

        targets, labels = ids[:, 1:], None
        if documents is not None:
            labels = {"document": documents[:, :-1]}
            targets = targets.masked_fill(documents[:, 1:] != documents[:, :-1], IGNORED)
        losses = model.losses(ids[:, :-1], targets, labels=labels, checkpoint=checkpoint)
        return losses, targets != IGNORED
