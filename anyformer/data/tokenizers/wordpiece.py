"""WordPiece (Schuster & Nakajima 2012; Devlin et al. 2019, BERT): a word becomes the longest known pieces, one by one.

unaffable -> un ##aff ##able: a piece that does not begin its word is written with ##.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from anyformer.core.spec import Size, spec
from anyformer.data.base import TextTokenizerSpec

if TYPE_CHECKING:
    from anyformer.data.tokenizer import TextTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
INSIDE = "##"
MARK = "\ue000"  # for private use, and so no character of a word that BERT's normalizer lets through
CHARACTERS = 1000  # the most frequent ones, which stand for themselves both at the start and inside of a word


@spec
class WordPiece(TextTokenizerSpec):
    """Words as BERT splits them: at white space and around every punctuation mark.

    vocabulary: at most so many ids, the five special ones among them. lowercase: capitals and accents are taken off.
    A word with a character that was not learnt is one [UNK], so that not every text comes back; neither do white space
    and what was taken off.
    """

    vocabulary: Annotated[Size, Field(gt=len(SPECIAL))] = 8192
    lowercase: bool = True

    def train(self, training: Iterable[str], held_out: Iterable[str]) -> TextTokenizer:
        """Learns the pieces by BPE within words; a short text runs out of pairs, and gives fewer ids.

        The library's trainer of WordPiece numbers letters by chance, and so gives another vocabulary each time. Its BPE
        does not, and with a mark before every word it tells the pieces that begin one.
        """
        import numpy as np
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

        from anyformer.data.guard import guarded
        from anyformer.data.pieces import training_batches

        learner = Tokenizer(models.BPE())
        # Two of them: the library locks the one that it trains with, and would wait for ever for a letter's count.
        normalizer, learner.normalizer = (normalizers.BertNormalizer(lowercase=self.lowercase) for _ in range(2))
        learner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")]
        )
        counts = np.zeros(0x110000, dtype=np.int64)

        def counted() -> Iterator[list[str]]:
            for batch in training_batches(training, "WordPiece"):
                text = normalizer.normalize_str("\n".join(batch))
                counts[:] += np.bincount(np.frombuffer(text.encode("utf-32-le"), dtype="<u4"), minlength=len(counts))
                yield batch

        trainer = trainers.BpeTrainer(vocab_size=2 * self.vocabulary, show_progress=False)  # letters not counted twice
        with guarded("WordPiece cannot be trained on this text"):
            learner.train_from_iterator(counted(), trainer)
        learnt = learner.get_vocab()
        order = map(chr, np.argsort(-counts, kind="stable"))  # the most frequent first
        letters = [letter for letter in order if letter in learnt and letter != MARK]
        common = letters[:CHARACTERS]
        longer = [piece for piece in sorted(learnt, key=learnt.__getitem__) if len(piece.removeprefix(MARK)) > 1]
        written = [piece.removeprefix(MARK) if piece.startswith(MARK) else INSIDE + piece for piece in longer]
        pieces = dict.fromkeys([*SPECIAL, *common, *(INSIDE + letter for letter in common), *written, *letters])
        return bert(list(pieces)[: self.vocabulary], self.lowercase)


def bert(pieces: Iterable[str], lowercase: bool) -> TextTokenizer:
    """BERT's tokenizer of a vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    from anyformer.data.guard import guarded
    from anyformer.data.tokenizer import TextTokenizer

    with guarded("a vocabulary of WordPiece"):
        backend = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token=SPECIAL[1]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=INSIDE)
    backend.add_special_tokens(list(SPECIAL))
    return TextTokenizer(backend)
