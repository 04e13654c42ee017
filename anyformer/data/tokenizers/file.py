"""File: a tokenizer that exists, as it was published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from anyformer.core.errors import InputError
from anyformer.core.spec import spec
from anyformer.data.base import TextTokenizerSpec

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer


@spec
class File(TextTokenizerSpec):
    """path: a `tokenizer.json`, or a folder with one, or with `vocab.json` and `merges.txt`, or with `vocab.txt`.

    It is found as given or below $ANYFORMER_DATA; nothing is learnt. The two files are as GPT-2 has them, the one as
    BERT has it: capitals are taken off where the vocabulary has none.
    """

    path: Annotated[str, Field(min_length=1)]

    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """Needs no text."""
        return self.existing()

    def existing(self) -> TextTokenizer:
        """What the path holds."""
        from anyformer.data.reading import locate
        from anyformer.data.tokenizer import TextTokenizer

        found = locate(self.path, field="data.tokenizer.path")
        if not found.is_dir():
            return TextTokenizer.load(found)
        if (found / "tokenizer.json").is_file():
            return TextTokenizer.load(found / "tokenizer.json")
        if (found / "vocab.json").is_file() and (found / "merges.txt").is_file():
            return _of_pairs(found / "vocab.json", found / "merges.txt")
        if (found / "vocab.txt").is_file():
            return _of_words(found / "vocab.txt")
        raise InputError(
            f"{found} holds no tokenizer: neither tokenizer.json, nor vocab.json and merges.txt, nor vocab.txt; others"
            " (a SentencePiece model, say) have to be saved as tokenizer.json first"
        )


def _of_pairs(vocabulary: Path, merges: Path) -> TextTokenizer:
    """GPT-2's form of byte-level BPE, which RoBERTa shares."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from anyformer.data.byte_level import ALPHABET
    from anyformer.data.guard import guarded
    from anyformer.data.tokenizer import NAMES, TextTokenizer

    with guarded(f"{vocabulary} and {merges.name}"):
        known, pairs = models.BPE.read_file(str(vocabulary), str(merges))
        backend = Tokenizer(models.BPE(known, pairs))
    if not known.keys() >= {*ALPHABET} or any(token.endswith("</w>") for token in known):
        raise InputError(f"{vocabulary}: is no byte-level vocabulary as GPT-2 has it: save it as tokenizer.json first")
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(sorted(NAMES & known.keys(), key=known.__getitem__))
    return TextTokenizer(backend)


def _of_words(vocabulary: Path) -> TextTokenizer:
    """BERT's form of WordPiece: a piece a line."""
    from anyformer.data.reading import read_text
    from anyformer.data.tokenizers.wordpiece import SPECIAL, bert

    pieces = [line.rstrip("\r") for line in read_text(vocabulary).removesuffix("\n").split("\n")]
    first: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        if first.setdefault(piece, number) != number:
            raise InputError(f"{vocabulary}, line {number}: {piece!r} stands on line {first[piece]} too")
    missing = [name for name in SPECIAL if name not in first]
    if missing:
        raise InputError(f"{vocabulary}: is no vocabulary as BERT has it: it lacks {', '.join(missing)}")
    capitals = any(piece != piece.lower() for piece in pieces if piece not in SPECIAL)
    return bert(pieces, lowercase=not capitals)
