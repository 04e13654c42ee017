"""Unigram (Kudo 2018; SentencePiece, Kudo & Richardson 2018): the pieces under which a text is the most probable.

p(text) = max over its segmentations of prod_i p(piece_i); pieces are dropped again and again, those first that are
missed the least.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from anyformer.core.spec import Size, spec
from anyformer.data.base import TextTokenizerSpec

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
SPACE = "\u2581"  # how a space is written in a vocabulary
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
LETTERS = "".join(sorted({*"".join((*SPECIAL, *BYTES))}))  # always known, so that a text may read like one of those


@spec
class Unigram(TextTokenizerSpec):
    """Pieces that may begin with a space, as SentencePiece has them; a character that was not learnt is its bytes.

    vocabulary: at most so many ids, four special ones and 256 for the bytes among them. Every text comes back, but for
    U+2581, which is how a space is written, and becomes one.
    """

    vocabulary: Annotated[Size, Field(ge=len(SPECIAL) + len(BYTES) + len(LETTERS) + 1)] = 8192

    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """Learns the pieces from the training text; a short text has fewer, and gives fewer ids.

        The library adds up in an order that chance decides. What that changes is taken out: the last digits of the
        scores, and which of two equal pieces comes first.
        """
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        from anyformer.data.guard import guarded
        from anyformer.data.pieces import training_batches
        from anyformer.data.tokenizer import TextTokenizer

        learner = Tokenizer(models.Unigram())
        learner.normalizer = normalizer = normalizers.Prepend(SPACE)
        learner.pre_tokenizer = words = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never")
        trainer = trainers.UnigramTrainer(
            vocab_size=self.vocabulary - len(BYTES),
            special_tokens=list(SPECIAL),
            unk_token="<unk>",
            initial_alphabet=list(LETTERS),
            show_progress=False,
        )
        with guarded(f"Unigram cannot be trained with a vocabulary of {self.vocabulary}, {len(BYTES)} of it for bytes"):
            learner.train_from_iterator(training_batches(training, "Unigram"), trainer)
        learnt = _settled(json.loads(learner.to_str())["model"]["vocab"][len(SPECIAL) :])
        never = 7 * learnt[-1][1] - 1  # less than six letters: what no text is to become by being written out
        vocabulary = [*((name, never) for name in (*SPECIAL, *BYTES)), *learnt]
        backend = Tokenizer(models.Unigram(vocabulary, unk_id=SPECIAL.index("<unk>"), byte_fallback=True))
        backend.normalizer, backend.pre_tokenizer = normalizer, words
        backend.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        backend.add_special_tokens(list(SPECIAL))
        return TextTokenizer(backend)


def _settled(learnt: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Pieces and their scores, best first, the same ones for the same text.

    Letters that are no piece by themselves have the lowest score and, in any order, steps of 1e-4 more: without those.
    """
    low = min(score for _, score in learnt)
    steps = low + 1e-4 * sum(len(piece) == 1 for piece, _ in learnt)
    scores = {
        piece: round(low if len(piece) == 1 and score <= steps else score, 4)
        for piece, score in learnt
        if piece not in SPECIAL and piece not in BYTES
    }
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
