"""Bytes as tokens (ByT5, Xue et al. 2021): 256 ids, the values of UTF-8's bytes; nothing to train, nothing unknown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from anyformer.core.spec import spec
from anyformer.data.base import TextTokenizerSpec

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer


@spec
class Bytes(TextTokenizerSpec):
    """Every byte is a token; the vocabulary is 256, with no special token."""

    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """Needs no text."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        from anyformer.data.byte_level import ALPHABET
        from anyformer.data.tokenizer import TextTokenizer

        backend = Tokenizer(models.BPE({letter: byte for byte, letter in enumerate(ALPHABET)}, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        return TextTokenizer(backend)
