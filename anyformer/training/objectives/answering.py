"""Span answering (SQuAD; Devlin et al. 2019, section 4.2): where in a text the answer to a question starts and ends.

The input is [start] question [separator] context [separator]. Without an answer both places are the first token
(section 4.3). Of all spans in the context of at most `longest` tokens the one with the largest sum of logits is the
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.spec import Size, spec
from anyformer.data.base import Row, column
from anyformer.training.objectives.base import IGNORED, Coder
from anyformer.training.objectives.inputs import given, inputs, marked
from anyformer.training.objectives.rows import Arrays, RowObjective, TooLong, text_of

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.examples import Example, Examples
    from anyformer.training.objectives.base import Figure, Tensors


@spec
class Answering(RowObjective):
    """The span of the column `context` that answers `question`; `answer` says it, empty where there is none (BERT).

    A column `start` may say at which character it begins; otherwise it is where the answer stands first.
    """

    texts: ClassVar[tuple[str, ...]] = ("question", "context")
    questions: ClassVar[tuple[str, ...]] = ("ids", "segment", "begins", "ends")
    answers: ClassVar[tuple[str, ...]] = ("span",)
    sequences: ClassVar[tuple[str, ...]] = ("ids",)

    longest: Size = 30
    too_long: TooLong = "refuse"

    def question(self, row: Row, coder: Coder) -> Example:
        tokenizer = coder.tokenizers.target
        question, context = text_of(row, "question"), text_of(row, "context")
        ids, offsets = tokenizer.encode_with_offsets(context)
        whole = marked(tokenizer, [tokenizer.encode(question), ids])
        # one pair of characters a token; -1 outside of the context
        begins, ends = np.full((2, len(whole["ids"])), -1)
        first = len(whole["ids"]) - len(ids) - (tokenizer.separator is not None)
        for place, (begin, end) in enumerate(offsets, first):
            begins[place], ends[place] = begin, end
        return {**whole, "begins": begins, "ends": ends}

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        context, answer = text_of(row, "context"), column(row, "answer")
        if not answer:
            return {"span": np.array([0, 0])}
        place = row.get("start", "").strip()
        if place and not place.isdecimal():
            raise InputError(f"the column 'start' holds {place!r}, which is no number of a character")
        start = int(place) if place else context.find(answer)
        if start < 0 or context[start : start + len(answer)] != answer:
            raise InputError(f"the answer {answer!r} does not stand in the context" + (f" at {start}" * (start >= 0)))
        inside = (question["begins"] < start + len(answer)) & (question["ends"] > start) & (question["begins"] >= 0)
        places = np.flatnonzero(inside)
        if not len(places):
            raise InputError(f"no token of the context holds the answer {answer!r}")
        return {"span": np.array([places[0], places[-1]])}

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        arrays = inputs(examples, rows, length)
        return arrays | {name: examples.padded(name, rows, -1)[:, :length] for name in ("begins", "ends")}

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        span = examples.padded("span", rows, 0)
        return {"span": np.where((span < length).all(1, keepdims=True), span, IGNORED)}, len(rows)

    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        spans, scores = self._best(model, tensors)
        answers = []
        for row, (first, last), score, begins, ends in zip(
            rows, spans.tolist(), scores.tolist(), tensors["begins"], tensors["ends"], strict=True
        ):
            begin, end = (int(begins[first]), int(ends[last])) if last else (0, 0)
            begin += len(row["context"][begin:end]) - len(row["context"][begin:end].lstrip())  # a token's own space
            answers.append({"answer": row["context"][begin:end], "start": begin, "end": end, "score": score})
        return answers

    def check(self, model: Model) -> None:
        from anyformer.heads.span import SpanHead

        if not isinstance(model.head, SpanHead):
            raise ConfigError("answering needs a model with the head span")

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        said = given(model, tensors)
        return model.losses(tensors["ids"], tensors["span"], checkpoint=checkpoint, tape=tape, **said).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        span = tensors["span"]
        nats = model.losses(tensors["ids"], span, **given(model, tensors)).double()
        best, _ = self._best(model, tensors)
        return {"nats": nats, "exact": (best == span).all(1), "rows": span.new_ones(len(span))}

    def figures(self, corpus: Corpus[Examples]) -> dict[str, Figure]:
        return {
            "loss": lambda sums: sums["nats"] / sums["rows"],
            "exact_match": lambda sums: sums["exact"] / sums["rows"],
        }

    def _best(self, model: Model, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """The places (B, 2) of the best span, (0, 0) for none, and its score (B,)."""
        import torch

        logits = model(tensors["ids"], **given(model, tensors))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        length = logits.shape[1]
        place = torch.arange(length, device=logits.device)
        ahead = place - place[:, None]  # (starts, ends)
        inside = tensors["begins"] >= 0
        allowed = inside[:, :, None] & inside[:, None] & (ahead >= 0) & (ahead < self.longest)
        allowed[:, 0, 0] = True
        scores = (logits[:, :, None, 0] + logits[:, None, :, 1]).masked_fill(~allowed, -torch.inf).flatten(1)
        best = scores.max(-1)
        return torch.stack([best.indices // length, best.indices % length], -1), best.values
