"""Characters as tokens: those of the training text, sorted.

What happens to a character that the training text does not have: where the held-out text has one too, the vocabulary
gets U+FFFD, Unicode's own "unknown character", which stands for all of them (it is never trained on, and its loss says
so). Otherwise there is no such id, and a text with an unknown character is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from anyformer.core.errors import InputError
from anyformer.core.spec import spec
from anyformer.data.base import TextTokenizerSpec

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer


@spec
class Characters(TextTokenizerSpec):
    """Every character (code point) is a token; no special token."""

    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """Collects the characters."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        from anyformer.data.guard import check_text
        from anyformer.data.lookup import ONE_CHARACTER, REPLACEMENT
        from anyformer.data.tokenizer import TextTokenizer

        known = _characters(training)
        if not known:
            raise InputError("there is no training text to take characters from: lower data.held_out, or take bytes")
        if _characters(held_out) - known:
            known.add(REPLACEMENT)
        check_text("".join(sorted(known)))
        vocabulary = {character: token for token, character in enumerate(sorted(known))}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token=REPLACEMENT))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(ONE_CHARACTER), "isolated")
        backend.decoder = decoders.Fuse()
        return TextTokenizer(backend)


def _characters(documents: Iterable[str]) -> set[str]:
    known: set[str] = set()
    for document in documents:
        known.update(document)
    return known
