"""What text data offers, and what a tokenizer is made from. No torch and no numpy: recipes are checked without them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from anyformer.core.spec import DataSpec, TokenizerSpec

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer


class TextData(DataSpec, ABC):
    """Data that is a list of texts.

    tokenizer: how they become numbers. held_out: the fraction of the documents that is never trained on; of a single
    document it is the tail; 1 keeps all of it for evaluation.
    """

    tokenizer: TokenizerSpec
    held_out: float

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Every document, in an order that does not change; raises InputError where there is none."""


class TextTokenizerSpec(TokenizerSpec, ABC):
    """A tokenizer that is yet to be trained."""

    @abstractmethod
    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """The tokenizer for these documents: what it learns, it learns from the training text."""
