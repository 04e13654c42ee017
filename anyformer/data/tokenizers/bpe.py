"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): again and again the most frequent pair becomes a token.

It begins with the 256 bytes, so that any text has tokens; pairs are counted within words, as GPT-2 splits them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from anyformer.core.errors import InputError
from anyformer.core.spec import Size, spec
from anyformer.data.base import TextTokenizerSpec

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer

DOCUMENT = "<|endoftext|>"  # GPT-2's one special token: it begins a document, and so ends the one before


@spec
class Bpe(TextTokenizerSpec):
    """vocabulary: at most so many ids, one for the document's begin and 256 for the bytes among them."""

    vocabulary: Annotated[Size, Field(ge=257)] = 8192

    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """Learns the pairs from the training text; a short text runs out of pairs, and gives fewer ids."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        from anyformer.data.byte_level import ALPHABET
        from anyformer.data.guard import check_text, guarded
        from anyformer.data.pieces import pieces
        from anyformer.data.tokenizer import TextTokenizer

        def parts() -> Iterator[str]:
            empty = True
            for document in training:
                check_text(document)
                empty = False
                yield from pieces(document)
            if empty:
                raise InputError("there is no training text to learn BPE from: lower data.held_out, or take bytes")

        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=[DOCUMENT],
            initial_alphabet=list(ALPHABET),
            show_progress=False,
        )
        with guarded("BPE cannot be trained on this text"):
            backend.train_from_iterator(parts(), trainer)
        return TextTokenizer(backend, begin=DOCUMENT, end=DOCUMENT)
