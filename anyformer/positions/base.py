"""The ways in which a position scheme can act. Each scheme is one of them; a holder refuses those it cannot use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from anyformer.core.context import Where
from anyformer.core.layer import Part
from anyformer.core.spec import Site


class OnEmbeddings(Part, ABC):
    """Adds to the embeddings, once. longest: the longest text that it can tell apart; None: no bound."""

    acts = "on embeddings"
    longest: int | None = None

    @abstractmethod
    def forward(self, x: Tensor, where: Where) -> Tensor:
        """(B, T, C) -> (B, T, C)."""


class OnPairs(Part, ABC):
    """Turns queries and keys; a key's turn depends on where it is, never on who looks at it.

    uncut: why a text cannot be cut into calls here; empty: it can.
    """

    acts = "on queries and keys"
    uncut = ""

    @abstractmethod
    def forward(self, x: Tensor, where: Where) -> Tensor:
        """(B, T, H, D) -> (B, T, H, D)."""


class OnScores(Part, ABC):
    """Adds a term to the score of every pair."""

    acts = "on scores"

    @abstractmethod
    def forward(self, q: Where, k: Where) -> Tensor:
        """(B, T) and (B, S) -> (B or 1, H, T, S), added after scaling."""


class OnEdges(Part, ABC):
    """Gives every pair, an edge from token to token, a vector that joins its key, and perhaps one that joins its value.

    Vectors of pairs (T, S, D) are never made: a scheme says what they come to for these queries and for these weights.
    """

    acts = "on scores and values"

    @abstractmethod
    def forward(self, q: Tensor, where: Where, seen: Where) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Queries (B, T, H, D), scaled, and where they and the S keys are -> what is added to the scores (B, H, T, S).

        And what is added to the output, made from the weights: (B, H, T, S) -> (B, T, H, D), linear; None: nothing.
        """


class Nowhere(Part):
    """Tells nothing (NoPE, Haviv et al. 2022): a causal mask alone lets a decoder count."""

    acts = "nowhere"


Scheme = OnEmbeddings | OnPairs | OnScores | OnEdges | Nowhere


def on_a_line(at: Site) -> None:
    """Refuse tokens with several coordinates, for a scheme that reads one and would ignore the others."""
    if at.rank != 1:
        raise ValueError(f"{at.path}: this position scheme reads one coordinate; the model's tokens have {at.rank}")


def refuse_cuts(position: Scheme) -> None:
    """Refuse a state, for a scheme whose turns depend on the whole text."""
    if isinstance(position, OnPairs) and position.uncut:
        raise ValueError(
            f"{position.path}: {position.uncut}; call the model without a state, or take the scaling of that name that "
            "is given a length"
        )
