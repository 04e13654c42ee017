"""Sequence to sequence (Sutskever et al. 2014): each token of a target from a source and the tokens before it.

The encoder reads `source` and an end token; the decoder reads a begin token (the end token where there is no other) and
the target, and is to say the target and an end token. Label smoothing (Szegedy et al. 2016) asks for
(1 - e) of the probability at the token and e over all of the vocabulary alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.spec import Fraction, ModelSpec, Ref, Size, spec
from anyformer.data.base import Row
from anyformer.training.bleu import reference
from anyformer.training.objectives.base import IGNORED, Coder
from anyformer.training.objectives.inputs import padded
from anyformer.training.objectives.next_token import check_writer
from anyformer.training.objectives.rows import Arrays, TooLong, text_of
from anyformer.training.objectives.streams import with_vocabulary
from anyformer.training.objectives.writing import WritingObjective, unpadded

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.architectures.encoder_decoder import EncoderDecoder
    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.examples import Example, Examples
    from anyformer.data.tokenizer import TextTokenizer
    from anyformer.training.objectives.base import Tensors


@spec
class Seq2Seq(WritingObjective):
    """The column `target` from the column `source`, by an encoder and a decoder (Vaswani et al. 2017).

    smoothing: of the targets. beams, length_penalty: how it writes when it is evaluated.
    """

    questions: ClassVar[tuple[str, ...]] = ("source",)
    answers: ClassVar[tuple[str, ...]] = ("target", "reference")
    sequences: ClassVar[tuple[str, ...]] = ("source", "target")

    smoothing: Fraction = 0.1
    beams: Size = 4
    length_penalty: float = 0.6
    too_long: TooLong = "refuse"

    def question(self, row: Row, coder: Coder) -> Example:
        return {"source": np.array(coder.tokenizers.of_source.ended(text_of(row, "source")))}

    def answer(self, row: Row, question: Example, coder: Coder) -> Example:
        text, tokenizer = text_of(row, "target"), coder.tokenizers.target
        first, last = ends(tokenizer)
        return {"target": np.array([first, *tokenizer.encode(text), last]), "reference": reference(text)}

    def asked(self, examples: Examples, rows: NDArray[np.int64], length: int) -> Arrays:
        source, lengths = padded(examples, "source", rows, length)
        return {"source": source} | ({"source_lengths": lengths} if (lengths < source.shape[1]).any() else {})

    def wanted(self, examples: Examples, rows: NDArray[np.int64], length: int) -> tuple[Arrays, int]:
        target, lengths = padded(examples, "target", rows, length, IGNORED)
        references = examples.padded("reference", rows, -1)
        arrays = {"ids": target[:, :-1].clip(min=0), "targets": target[:, 1:], "references": references}
        return arrays, int((lengths - 1).sum())

    def prompts(self, tensors: Tensors, coder: Coder) -> tuple[list[list[int]], list[list[int]]]:
        read = unpadded(tensors["source"], tensors.get("source_lengths"))
        first, _ = ends(coder.tokenizers.target)
        return [[first]] * len(read), read

    def nats(self, model: Model, tensors: Tensors, smoothing: float, checkpoint: bool, tape: Tape | None) -> Tensor:
        return token_losses(model, tensors, smoothing, checkpoint, tape)

    def completed(self, model: ModelSpec, corpus: Corpus[Examples]) -> ModelSpec:
        model = check_reader(model, "seq2seq")
        size = corpus.tokenizers.of_source.vocabulary
        if corpus.tokenizers.source is not None and isinstance(model.source_embedding, Ref):
            raise ConfigError("two tokenizers need two tables of vectors: say --set model.source_embedding=tokens")
        if corpus.tokenizers.source is not None and model.source_vocabulary is None:
            model = replace(model, source_vocabulary=size)
        elif (model.source_vocabulary or size) < size:
            raise ConfigError(
                f"model.source_vocabulary ({model.source_vocabulary}) is smaller than the source tokenizer's ({size});"
                " leave it out, or raise it"
            )
        return with_vocabulary(model, corpus.tokenizer.vocabulary)

    def check(self, model: Model) -> None:
        check_writer(model, "seq2seq")


def check_reader(model: ModelSpec, objective: str) -> EncoderDecoder:
    """Refuse a declaration that does not read one sequence and write another."""
    from anyformer.architectures.encoder_decoder import EncoderDecoder

    if not isinstance(model, EncoderDecoder):
        raise ConfigError(f"{objective} needs a model of the kind encoder_decoder; this is a {type(model).__name__}")
    return model


def ends(tokenizer: TextTokenizer) -> tuple[int, int]:
    """The tokens before and after a target."""
    if tokenizer.end is None:
        raise InputError(
            "the tokenizer has no end token, so a model cannot learn where to stop: take bpe, unigram or wordpiece"
        )
    assert tokenizer.first is not None
    return tokenizer.first, tokenizer.end


def token_losses(
    model: Model, tensors: Tensors, smoothing: float = 0.0, checkpoint: bool = False, tape: Tape | None = None
) -> Tensor:
    """(B, T): nats, 0 where nothing is predicted."""
    from anyformer.architectures.encoder_decoder import SOURCE, EncoderDecoderModel

    assert isinstance(model, EncoderDecoderModel)
    source = model.encode(tensors["source"], tensors.get("source_lengths"), tape=tape, checkpoint=checkpoint)
    return model.losses(
        tensors["ids"],
        tensors["targets"],
        smoothing=smoothing,
        sources={SOURCE: source},
        checkpoint=checkpoint,
        tape=tape,
    )
