"""What objectives on running text share: the training side is one stream of tokens, read in windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.spec import DataSpec, ModelSpec
from anyformer.training.objectives.base import Batch, Feed, Objective

if TYPE_CHECKING:
    from anyformer.core.model import Model
    from anyformer.data.batches import Batches
    from anyformer.data.corpus import Corpus, Tokenizers
    from anyformer.data.token_file import TokenFile
    from anyformer.recipes.schema import Training

EXAM = 2**63  # the generator's key for what is held out: no batch of training has this number


@dataclass(frozen=True)
class Window:
    """ids: (B, length + 1). lengths: (B,), how many of the first `length` are there.

    documents: (B, length + 1), looked up only for models that tell them apart.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    documents: NDArray[np.int64] | None

    @property
    def real(self) -> NDArray[np.bool_]:
        """(B, length)"""
        return np.arange(self.ids.shape[1] - 1) < self.lengths[:, None]


class StreamObjective(Objective["TokenFile"], ABC):
    """The corpus is two TokenFiles."""

    @abstractmethod
    def arranged(self, window: Window, corpus: Corpus[TokenFile], model: Model, dice: np.random.Generator) -> Batch:
        """What the model is given, and asked, of some windows. dice: of this batch alone."""

    def corpus(self, data: DataSpec, seed: int, model: ModelSpec, known: Tokenizers | None = None) -> Corpus[TokenFile]:
        from anyformer.data.corpus import build

        return build(data, seed, None if known is None else known.target)

    def longest(self, length: int) -> int:
        """How many tokens a sequence that is made of `length` may have."""
        return length

    def completed(self, model: ModelSpec, corpus: Corpus[TokenFile]) -> ModelSpec:
        return with_vocabulary(model, corpus.tokenizer.vocabulary)

    def feed(self, corpus: Corpus[TokenFile], model: Model, training: Training, seed: int) -> Feed:
        from anyformer.data.batches import Batches

        longest, needs = longest_of(model), self.longest(training.length)
        if longest is not None and needs > longest:
            raise ConfigError(
                f"training.length ({training.length}) is more than the model can take: its positions tell {longest}"
                f" tokens apart, and a sequence may have {needs}"
            )
        batches = Batches(corpus.train, training.batch, training.length, seed)
        if len(corpus.held_out) == 1:
            raise InputError(
                "the held-out text is 1 token, from which nothing can be measured; give more text, raise "
                "data.held_out, or set it to 0 to measure nothing"
            )
        return Windows(self, corpus, model, batches)

    def exam(self, corpus: Corpus[TokenFile], model: Model, training: Training, most: int | None) -> Iterator[Batch]:
        from anyformer.data.batches import windows

        text, length, batch = corpus.held_out, training.length, training.batch
        if len(text) < 2:
            raise InputError(f"the text has {len(text)} tokens; at least 2 are needed to predict one from another")
        for number, (ids, lengths) in enumerate(islice(windows(text, length, batch), most)):
            documents = None
            if "document" in model.labels:
                first = (number * batch + np.arange(len(ids))) * length
                documents = text.documents((first[:, None] + np.arange(length + 1)).clip(max=len(text) - 1))
            window = Window(ids, lengths, documents)
            yield self.arranged(window, corpus, model, _dice(EXAM, number))


@dataclass(frozen=True)
class Windows(Feed):
    """Windows of `length` tokens and the one after them."""

    objective: StreamObjective
    corpus: Corpus[TokenFile]
    model: Model
    batches: Batches

    @property
    def tokens(self) -> float:
        return self.batches.batch * self.batches.length

    def at(self, number: int) -> Batch:
        lengths = np.full(self.batches.batch, self.batches.length)
        documents = self.batches.documents(number) if "document" in self.model.labels else None
        window = Window(self.batches.at(number), lengths, documents)
        return self.objective.arranged(window, self.corpus, self.model, _dice(self.batches.seed, number))

    def origin(self, number: int) -> str:
        return listed("documents", self.batches.documents(number) + 1)


def with_vocabulary(model: ModelSpec, size: int, whose: str = "the tokenizer's") -> ModelSpec:
    """The declaration with its vocabulary set, or judged by what is needed. whose: what needs so many ids."""
    if model.vocabulary is None:
        return replace(model, vocabulary=size)
    if model.vocabulary < size:
        raise ConfigError(
            f"model.vocabulary ({model.vocabulary}) is smaller than {whose} ({size}); leave it out, or raise it"
        )
    return model


def check_words(model: Model, objective: str) -> None:
    """Refuse a head that does not say every token of the vocabulary."""
    from anyformer.heads.base import TokenHead
    from anyformer.heads.pretraining import PretrainingHead

    head = model.head.tokens if isinstance(model.head, PretrainingHead) else model.head
    if not isinstance(head, TokenHead) or head.size < (model.spec.vocabulary or 0):
        came = "none" if model.head is None else f"a {type(model.head).__name__}"
        raise ConfigError(f"{objective} needs a head that says every token, such as tied or language; this is {came}")


def longest_of(model: Model) -> int | None:
    """The longest sequence that a model can take on any side; None: no bound."""
    from anyformer.architectures.encoder_decoder import EncoderDecoderModel

    source = model.enter_source.longest if isinstance(model, EncoderDecoderModel) else None
    return min((longest for longest in (model.longest, source) if longest is not None), default=None)


def refuse_longer(tokens: int, model: Model) -> None:
    """Refuse a text that a model has no positions for."""
    longest = longest_of(model)
    if longest is not None and tokens > longest:
        raise InputError(f"has {tokens} tokens, and the model's positions end at {longest}")


def listed(what: str, numbers: NDArray[np.integer]) -> str:
    """A few numbers in words."""
    found = sorted(set(numbers.flatten().tolist()))
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"the {what} {', '.join(map(str, found[:8]))}{more}"


def _dice(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, number], dtype=np.uint64)))
