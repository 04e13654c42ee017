"""Distillation (Hinton et al. 2015): a model learns what is right, and what a teacher holds to be likely beside it.

loss = (1 - w) CE(targets) + w t^2 KL(softmax(z_teacher / t) || softmax(z / t)), z the logits of each answer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.roles import Objective as AnyObjective
from anyformer.core.spec import DataSpec, Fraction, ModelSpec, Positive, from_dict, spec
from anyformer.data.base import Row
from anyformer.training.objectives.base import IGNORED, Batch, Coder, Feed, Guide, Objective
from anyformer.training.objectives.classification import Classification, labels_of
from anyformer.training.objectives.inputs import given
from anyformer.training.objectives.masked import Masked
from anyformer.training.objectives.next_token import NextToken
from anyformer.training.objectives.streams import longest_of

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.head import Head
    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus, Tokenizers
    from anyformer.recipes.schema import Training
    from anyformer.training.objectives.base import Figure, Tensors


@spec
class Distillation(Objective[Any]):
    """What a teacher holds to be likely, beside what is right (Hinton et al. 2015).

    teacher: the folder of a run, or of a published checkpoint; its tokenizer is the student's. of: what both are asked:
    next_token, masked without next sentences, or classification. weight: w, of the teacher. temperature: t.
    """

    teacher: Annotated[str, Field(min_length=1)]
    of: AnyObjective = Field(default_factory=partial(from_dict, AnyObjective, "next_token"))
    weight: Fraction = 0.5
    temperature: Positive = 2.0

    @property
    def guide(self) -> Guide:
        return Guide(self.teacher, measures=False)

    @property
    def inner(self) -> NextToken | Masked | Classification:
        """What both are asked; it is also what is measured, so that a student compares with who had no teacher."""
        of = self.of
        if not isinstance(of, NextToken | Masked | Classification) or (isinstance(of, Masked) and of.next_sentence):
            raise ConfigError("objective.of: should be next_token, masked without next_sentence, or classification")
        return of

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        import torch

        from anyformer.heads.base import TokenHead, in_chunks, nats

        (teacher,) = model.guide
        with torch.no_grad():
            known, theirs = _read(teacher, tensors)
        said, ours = _read(model, tensors, checkpoint=checkpoint, tape=tape)
        smoothing = self.inner.smoothing if isinstance(self.inner, Classification) else 0.0

        def losses(said: Tensor, known: Tensor, targets: Tensor) -> Tensor:
            logits = ours(said)
            right, near = nats(logits, targets, smoothing), divergence(logits, theirs(known), self.temperature)
            near = near.masked_fill(targets == IGNORED, 0)
            return (1 - self.weight) * right + self.weight * self.temperature**2 * near

        targets = tensors["label" if "label" in tensors else "targets"].flatten()
        head = answering(model)
        return in_chunks(losses, head.size if isinstance(head, TokenHead) else 1, said, known, targets).sum()

    def check(self, model: Model) -> None:
        self.inner.check(model)
        for teacher in model.guide:
            self._check_teacher(teacher, model)

    def corpus(self, data: DataSpec, seed: int, model: ModelSpec, known: Tokenizers | None = None) -> Corpus[Any]:
        from anyformer.models.checkpoint import open_checkpoint

        inner = self.inner
        if known is None and (known := open_checkpoint(self.teacher).tokenizers) is None:
            raise InputError(f"{self._whose} has no tokenizer, so nobody knows what its ids mean")
        return inner.corpus(data, seed, model, known)

    def completed(self, model: ModelSpec, corpus: Corpus[Any]) -> ModelSpec:
        from anyformer.models.checkpoint import declaration

        if model.vocabulary is None:  # a teacher may have more ids than its tokenizer
            model = replace(model, vocabulary=declaration(self.teacher).vocabulary)
        return self.inner.completed(model, corpus)

    def feed(self, corpus: Corpus[Any], model: Model, training: Training, seed: int) -> Feed:
        for longest in filter(None, map(longest_of, model.guide)):
            if training.length > longest:
                raise ConfigError(
                    f"training.length ({training.length}) is more than {self._whose} can take: its positions tell"
                    f" {longest} tokens apart"
                )
        return self.inner.feed(corpus, model, training, seed)

    def exam(self, corpus: Corpus[Any], model: Model, training: Training, most: int | None) -> Iterator[Batch]:
        return self.inner.exam(corpus, model, training, most)

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        return self.inner.marks(model, tensors)

    def figures(self, corpus: Corpus[Any]) -> dict[str, Figure]:
        return self.inner.figures(corpus)

    def classes_of(self, model: ModelSpec) -> tuple[str, ...]:
        return self.inner.classes_of(model)

    def predicted(self, model: Model, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        return self.inner.predicted(model, rows, coder)

    @property
    def _whose(self) -> str:
        return f"the teacher {self.teacher}"

    def _check_teacher(self, teacher: Model, model: Model) -> None:
        """The same question has to have the same answers, in the same order."""
        from anyformer.data.tokenizer import TextTokenizer

        try:
            self.inner.check(teacher)
            theirs, ours = (", ".join(labels_of(one.spec)) or "none" for one in (teacher, model))
        except ConfigError as error:
            raise ConfigError(f"{self._whose}: {error}") from None
        if theirs != ours:
            raise ConfigError(
                f"{self._whose} knows the classes {theirs}, and the model {ours}; they and their order should be the"
                " same: set model.head.labels"
            )
        sizes = teacher.spec.vocabulary, model.spec.vocabulary
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"{self._whose} has a vocabulary of {sizes[0]} and the model one of {sizes[1]}; leave out"
                " model.vocabulary, and load no model with a tokenizer of its own"
            )
        known, own = teacher.tokenizer, model.tokenizer
        if not (isinstance(known, TextTokenizer) and isinstance(own, TextTokenizer)):
            raise ConfigError(f"{self._whose} has no tokenizer, so nobody knows what its ids mean")
        if known.fingerprint != own.fingerprint:
            raise ConfigError(
                f"{self._whose} has another tokenizer than the model, so that equal ids are other texts; load no model"
                " with a tokenizer of its own"
            )


def divergence(logits: Tensor, known: Tensor, temperature: float) -> Tensor:
    """(N,) KL(softmax(known / t) || softmax(logits / t)) of logits (N, K), in float32 at least."""
    import torch
    from torch.nn import functional as F

    ours, theirs = (
        (z.to(torch.promote_types(z.dtype, torch.float32)) / temperature).log_softmax(-1) for z in (logits, known)
    )
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


def answering(model: Model) -> Head:
    """The head whose answers are asked for."""
    from anyformer.heads.pretraining import PretrainingHead

    assert model.head is not None  # `check` has seen it
    return model.head.tokens if isinstance(model.head, PretrainingHead) else model.head


def _read(model: Model, tensors: Tensors, **how: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """(N, …), a row for each answer, and what makes logits (N, K) of it: those of tokens are made in chunks."""
    from anyformer.heads.base import TokenHead

    head = answering(model)
    told = given(model, tensors)
    if isinstance(head, TokenHead):
        return model.read(tensors["ids"], lambda h, where: h.flatten(0, 1), **told, **how), head.logits
    return model.read(tensors["ids"], head, **told, **how), lambda logits: logits
