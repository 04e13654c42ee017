"""Prompted text: -log of each token of an answer given its prompt; the prompt itself is not learnt to be said.

A row is [begin] prompt answer [end]. Where the model declares the label `prefix`, the prompt carries it, so that
patterns such as `prefix | causal` let it be seen from both sides (prefix language models; Raffel et al. 2020, section
3.2.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from anyformer.core.spec import Fraction, Size, spec
from anyformer.data.base import Row
from anyformer.training.bleu import reference
from anyformer.training.objectives.base import IGNORED, Coder
from anyformer.training.objectives.inputs import after_prompt, given, padded
from anyformer.training.objectives.next_token import check_writer
from anyformer.training.objectives.rows import Arrays, TooLong, text_of
from anyformer.training.objectives.seq2seq import ends
from anyformer.training.objectives.writing import WritingObjective, unpadded

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.examples import Example, Examples
    from anyformer.training.objectives.base import Tensors


@spec
class Prompted(WritingObjective):
    """The column `target` after the prompt `source`, by a decoder (Raffel et al. 2020).

    smoothing: of the targets. beams, length_penalty: how it writes when it is evaluated.
    """

    questions: ClassVar[tuple[str, ...]] = ("prompt",)
    answers: ClassVar[tuple[str, ...]] = ("whole", "reference")
    sequences: ClassVar[tuple[str, ...]] = ("whole",)

    smoothing: Fraction = 0.0
    beams: Size = 4
    length_penalty: float = 0.6
    too_long: TooLong = "refuse"

    def question(self, row: Row, coder: Coder) -> Example:
        return {"prompt": np.array(coder.tokenizers.target.begun(text_of(row, "source")))}

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        text, tokenizer = text_of(row, "target"), coder.tokenizers.target
        _, last = ends(tokenizer)
        return {"whole": np.array([*question["prompt"], *tokenizer.encode(text), last]), "reference": reference(text)}

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        prompt, lengths = padded(examples, "prompt", rows, length)
        return {"prompt": prompt, "prompt_lengths": lengths}

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        whole, _ = padded(examples, "whole", rows, length + 1, IGNORED)
        arrays = after_prompt(whole, examples.lengths("prompt", rows)[:, None])
        count = int((arrays["targets"] != IGNORED).sum())
        return arrays | {"references": examples.padded("reference", rows, -1)}, count

    def check(self, model: Model) -> None:
        check_writer(model, "prompted")

    def prompts(self, tensors: Tensors, coder: Coder) -> tuple[list[list[int]], None]:
        return unpadded(tensors["prompt"], tensors["prompt_lengths"]), None

    def nats(self, model: Model, tensors: Tensors, smoothing: float, checkpoint: bool, tape: Tape | None) -> Tensor:
        return model.losses(
            tensors["ids"],
            tensors["targets"],
            smoothing=smoothing,
            checkpoint=checkpoint,
            tape=tape,
            **given(model, tensors),
        )
