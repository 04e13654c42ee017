"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): again and again the most frequent pair becomes a token.

It begins with the 256 bytes, so that any text has tokens; pairs are counted within words, as GPT-2 splits them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from anyformer.core.spec import Size, spec
from anyformer.data.base import TextTokenizerSpec

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer

DOCUMENT = "<|endoftext|>"  # GPT-2's one special token: it begins a document, and so ends the one before
# In brackets, so that it is no word and no sign of a text, and no pair of them is ever merged into it.
Special = Annotated[str, Field(pattern=r"^[<\[].*[a-zA-Z0-9].*[>\]]$")]


@spec
class Bpe(TextTokenizerSpec):
    """vocabulary: at most so many ids, the special ones and 256 for the bytes among them.

    special: tokens that no text holds, the first ids. What they are for is known by their usual names: a translation
    has "<pad>", "<s>" and "</s>".
    """

    vocabulary: Size = 8192
    special: tuple[Special, ...] = (DOCUMENT,)

    @model_validator(mode="after")
    def _room(self) -> Bpe:
        if len({*self.special}) < len(self.special):
            raise ValueError(f"special ({', '.join(self.special)}) must differ from each other")
        least = 256 + len(self.special)
        if self.vocabulary < least:
            raise ValueError(f"vocabulary ({self.vocabulary}) must be at least {least}: the bytes and what is special")
        return self

    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """Learns the pairs from the training text; a short text runs out of pairs, and gives fewer ids."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        from anyformer.data.byte_level import ALPHABET
        from anyformer.data.guard import guarded
        from anyformer.data.pieces import training_batches
        from anyformer.data.tokenizer import TextTokenizer

        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=list(self.special),
            initial_alphabet=list(ALPHABET),
            show_progress=False,
        )
        with guarded("BPE cannot be trained on this text"):
            backend.train_from_iterator(training_batches(training, "BPE"), trainer)
        return TextTokenizer(backend)
