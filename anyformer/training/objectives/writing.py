"""What objectives share whose answers are texts: the column `target`, said after the column `source` was read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from anyformer.data.base import Row
from anyformer.training.bleu import bleu, bleu_marks
from anyformer.training.objectives.base import Coder, token_marks
from anyformer.training.objectives.rows import RowObjective
from anyformer.training.scores import per_token

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.examples import Examples
    from anyformer.training.objectives.base import Figure, Tensors


class WritingObjective(RowObjective, ABC):
    """smoothing: of the targets. beams, length_penalty: how the model writes when it is evaluated."""

    asks: ClassVar[str] = "source"
    texts: ClassVar[tuple[str, ...]] = ("source", "target")
    smoothing: float
    beams: int
    length_penalty: float

    @abstractmethod
    def nats(self, model: Model, tensors: Tensors, smoothing: float, checkpoint: bool, tape: Tape | None) -> Tensor:
        """(B, T) of the targets, 0 where nothing is predicted."""

    @abstractmethod
    def prompts(self, tensors: Tensors, coder: Coder) -> tuple[list[list[int]], list[list[int]] | None]:
        """What the decoder goes on from in each row, and what the encoder reads, where there is one."""

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        return self.nats(model, tensors, self.smoothing, checkpoint, tape).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        return token_marks(self.nats(model, tensors, 0.0, False, None), tensors)

    def figures(self, corpus: Corpus[Examples]) -> dict[str, Figure]:
        return per_token()

    def said(self, model: Model, tensors: Tensors, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        return [{"text": text} for text in self._texts(model, tensors, coder)]

    def written(self, model: Model, tensors: Tensors, coder: Coder) -> dict[str, Tensor]:
        return bleu_marks(self._texts(model, tensors, coder), tensors["references"])

    def written_figures(self) -> dict[str, Figure]:
        return {"bleu": bleu}

    def _texts(self, model: Model, tensors: Tensors, coder: Coder) -> list[str]:
        """The best text of a beam search after each prompt.

        It may have 50 tokens more than was read (Vaswani et al. 2017, section 6.1), as far as the positions go.
        """
        from anyformer.generation.beam import Beams, beam_search
        from anyformer.generation.prompts import LONGER, Prompts

        prompts, read = self.prompts(tensors, coder)
        counts = [len(row) + LONGER for row in read or prompts]
        if model.longest is not None:
            counts = [min(count, model.longest - len(prompt)) for count, prompt in zip(counts, prompts, strict=True)]
        search, tokenizer = Beams(beams=self.beams, length_penalty=self.length_penalty), coder.tokenizers.target
        found = beam_search(model, Prompts(prompts, counts, read), search, end=tokenizer.ends)
        return [tokenizer.decode(best.ids) for best, *_ in found]


def unpadded(ids: Tensor, lengths: Tensor | None) -> list[list[int]]:
    """Rows without their padding."""
    if lengths is None:
        return ids.tolist()
    return [row[:size] for row, size in zip(ids.tolist(), lengths.tolist(), strict=True)]
