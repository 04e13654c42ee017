"""Replies: -log of each token that the assistant says in a conversation, given all before it (supervised fine-tuning).

The conversation is written by a chat template. What others say is read and not learnt to be said; the end of each of
the assistant's turns is (Ouyang et al. 2022, section 3).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from anyformer.core.errors import InputError
from anyformer.core.spec import DataSpec, ModelSpec, spec
from anyformer.data.base import Row
from anyformer.data.chat import SHIPPED, speaking, template_text
from anyformer.data.conversations import messages_of
from anyformer.training.objectives.base import IGNORED, Coder, token_marks
from anyformer.training.objectives.inputs import padded
from anyformer.training.objectives.next_token import check_writer, token_losses
from anyformer.training.objectives.rows import Arrays, RowObjective, TooLong, text_of
from anyformer.training.scores import per_token

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus, Tokenizers
    from anyformer.data.examples import Example, Examples
    from anyformer.training.objectives.base import Figure, Tensors

# A file becomes what it says, so that a run needs it no more; a shipped name stays.
Template = Annotated[str, AfterValidator(lambda name: name if name in SHIPPED else template_text(name))]


@spec
class Replies(RowObjective):
    """What the assistant says in conversations, by a decoder (Ouyang et al. 2022).

    template: how they are written: a shipped name (chatml), a file of Jinja, or a template itself; None: as the model
    that is trained comes with.
    """

    asks: ClassVar[str] = "message"
    texts: ClassVar[tuple[str, ...]] = ("messages",)
    questions: ClassVar[tuple[str, ...]] = ("ids", "said")
    answers: ClassVar[tuple[str, ...]] = ()
    sequences: ClassVar[tuple[str, ...]] = ("ids",)

    template: Template | None = None
    too_long: TooLong = "refuse"

    def corpus(self, data: DataSpec, seed: int, model: ModelSpec, known: Tokenizers | None = None) -> Corpus[Examples]:
        from anyformer.data.corpus import text_data, tokenizers_of
        from anyformer.data.sides import sides

        known = known or tokenizers_of(sides(text_data(data), seed), seed, self.texts)
        target = speaking(known.target, self.template, "objective.template")
        return super().corpus(data, seed, model, replace(known, target=target))

    def question(self, row: Row, coder: Coder) -> Example:
        try:
            messages = messages_of({"messages": json.loads(text_of(row, "messages"))})
        except (json.JSONDecodeError, RecursionError):
            raise InputError("the column 'messages' should be a list of messages as JSON") from None
        tokenizer = coder.tokenizers.target
        assert tokenizer.chat is not None
        ids, said = tokenizer.chat.said(messages, tokenizer)
        if not any(said[1:]):
            raise InputError(f"{tokenizer.chat.where}: writes nothing of what the assistant says")
        return {"ids": np.array(ids), "said": np.array(said, dtype=np.int64)}

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        return {}

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        ids, _ = padded(examples, "ids", rows, length + 1)
        return {"ids": ids[:, :-1]}

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        ids, said = (padded(examples, name, rows, length + 1)[0][:, 1:] for name in ("ids", "said"))
        return {"targets": np.where(said == 1, ids, IGNORED)}, int(said.sum())

    def predicted(self, model: Model, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        return self.said(model, {}, rows, coder)

    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        from anyformer.generation.chat import Chat
        from anyformer.generation.sampling import Sampling

        texts = [text_of(row, self.asks) for row in rows]
        return [{"text": Chat(model, sampling=Sampling(greedy=True)).say(text)} for text in texts]

    def check(self, model: Model) -> None:
        check_writer(model, "replies")

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        return token_losses(model, tensors, checkpoint, tape).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        return token_marks(token_losses(model, tensors), tensors)

    def figures(self, corpus: Corpus[Examples]) -> dict[str, Figure]:
        return per_token()
