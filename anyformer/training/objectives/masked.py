"""Masked language modelling (Devlin et al. 2019, section 3.1): some tokens are hidden, and said from both sides.

Of the tokens that are text, a share is chosen, at least one a row; of these 80 % become [MASK], 10 % any token of the
vocabulary, 10 % stay; the loss is of the chosen ones. Whole words: all tokens of a word are chosen together. Next
sentence: a row is [start] a [separator] b [separator], and in half of the rows b comes from elsewhere, which a second
head is to tell. The choice is drawn anew for every batch; for what is held out it is always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.spec import Fraction, ModelSpec, spec
from anyformer.data.base import Row
from anyformer.data.byte_level import ALPHABET, token_bytes
from anyformer.data.examples import padded
from anyformer.training.objectives.base import IGNORED, Batch, Coder, token_marks
from anyformer.training.objectives.inputs import given, marked
from anyformer.training.objectives.rows import text_of
from anyformer.training.objectives.streams import StreamObjective, Window, check_words, refuse_longer, with_vocabulary
from anyformer.training.scores import per_token

if TYPE_CHECKING:
    from torch import Tensor

    from anyformer.core.model import Model
    from anyformer.core.tape import Tape
    from anyformer.data.corpus import Corpus
    from anyformer.data.token_file import TokenFile
    from anyformer.data.tokenizer import TextTokenizer
    from anyformer.training.objectives.base import Figure, Tensors

MASK, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stays
TOP = 5  # guesses for each mask
Array = NDArray[Any]


@spec
class Masked(StreamObjective):
    """Hidden tokens from those on both sides (Devlin et al. 2019).

    share: of the tokens that are chosen. whole_words: all tokens of a word or none. next_sentence: also whether the
    second half of a row follows the first, by the head `pretraining`.
    """

    share: Fraction = 0.15
    whole_words: bool = False
    next_sentence: bool = False

    def completed(self, model: ModelSpec, corpus: Corpus[TokenFile]) -> ModelSpec:
        if corpus.tokenizer.mask is None:
            raise ConfigError("masked needs a tokenizer with a mask token: take data.tokenizer=wordpiece")
        return with_vocabulary(model, corpus.tokenizer.vocabulary)

    def check(self, model: Model) -> None:
        from anyformer.heads.pretraining import PretrainingHead

        check_words(model, "masked")
        if self.next_sentence and not isinstance(model.head, PretrainingHead):
            raise ConfigError("objective.next_sentence needs a model with the head pretraining")

    def arranged(self, window: Window, corpus: Corpus[TokenFile], model: Model, dice: np.random.Generator) -> Batch:
        tokenizer = corpus.tokenizer
        assert tokenizer.mask is not None  # `completed` has seen to it
        rows, other = self._rows(window, tokenizer, dice)
        ids, lengths = padded([row["ids"] for row in rows], 0)
        fixed = [token for token in (tokenizer.start, tokenizer.separator) if token is not None]
        text = (np.arange(ids.shape[1]) < lengths[:, None]) & ~np.isin(ids, fixed)
        chosen = self._chosen(ids, text, tokenizer, dice)
        targets, luck = np.where(chosen, ids, IGNORED), dice.random(ids.shape)
        anything = dice.integers(tokenizer.vocabulary, size=ids.shape)
        ids = np.where(chosen & (luck < MASK), tokenizer.mask, ids)
        ids = np.where(chosen & (luck >= MASK) & (luck < MASK + RANDOM), anything, ids)
        arrays = {"ids": ids, "segment": padded([row["segment"] for row in rows], 0)[0], "targets": targets}
        if (lengths < ids.shape[1]).any():
            arrays["lengths"] = lengths
        if self.next_sentence:
            arrays["other"] = other
        return Batch.of(arrays, int(lengths.sum()), int(chosen.sum()))

    def loss(self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None) -> Tensor:
        nats, pairs = self._losses(model, tensors, checkpoint, tape)
        if pairs is None:
            return nats.sum()
        # both losses are means, one of tokens and one of rows; the step divides their sum by the number of tokens
        return nats.sum() + pairs.mean() * (tensors["targets"] != IGNORED).sum()

    def marks(self, model: Model, tensors: Tensors) -> dict[str, Tensor]:
        nats, pairs = self._losses(model, tensors)
        marks = token_marks(nats, tensors)
        return marks if pairs is None else marks | {"pair_nats": pairs.double(), "rows": pairs.new_ones(len(pairs))}

    def figures(self, corpus: Corpus[TokenFile]) -> dict[str, Figure]:
        if not self.next_sentence:
            return per_token()
        return per_token() | {"next_sentence_loss": lambda sums: sums["pair_nats"] / sums["rows"]}

    def predicted(self, model: Model, rows: Sequence[Row], coder: Coder) -> list[dict[str, Any]]:
        import torch

        tokenizer = coder.tokenizers.target
        answers = []
        for row in rows:
            ids = torch.as_tensor(marked(tokenizer, [tokenizer.encode(text_of(row, "text"), special=True)])["ids"])
            places = ids == tokenizer.mask
            if not places.any():
                raise InputError(f"there is no {tokenizer.decode([tokenizer.mask or 0], special=True)} in the text")
            refuse_longer(len(ids), model)
            device = next(model.parameters()).device
            best = model(ids[None].to(device))[0, places].double().softmax(-1).topk(TOP)
            filled = ids.masked_scatter(places, best.indices[:, 0].cpu())
            guesses = [
                [
                    {"token": tokenizer.decode([token]), "probability": chance}
                    for token, chance in zip(*pair, strict=True)
                ]
                for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
            answers.append({"text": tokenizer.decode(filled.tolist()), "masks": guesses})
        return answers

    def _losses(
        self, model: Model, tensors: Tensors, checkpoint: bool = False, tape: Tape | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Nats (B, T) of the chosen tokens, and (B,) of the pairs, in one pass."""
        from anyformer.heads.pretraining import PretrainingHead

        said = given(model, tensors) | {"checkpoint": checkpoint, "tape": tape}
        ids, targets, head = tensors["ids"], tensors["targets"], model.head
        if not self.next_sentence:
            return model.losses(ids, targets, **said), None
        assert isinstance(head, PretrainingHead)
        return model.read(
            ids,
            lambda h, where: (head.loss(h, targets, where), head.pair.loss(h, tensors["other"], where)),
            **said,
        )

    def _rows(self, window: Window, tokenizer: TextTokenizer, dice: np.random.Generator) -> tuple[list[Any], Array]:
        """The marked examples of a window's rows, and (B,): 1 where the second half comes from another row."""
        parts = 2 if self.next_sentence else 1
        marks = (tokenizer.start is not None) + parts * (tokenizer.separator is not None)
        texts = [
            row[: max(1, min(size, window.ids.shape[1] - 1 - marks))].tolist()
            for row, size in zip(window.ids, window.lengths, strict=True)
        ]
        other = np.zeros(len(texts), dtype=np.int64)
        if not self.next_sentence:
            return [marked(tokenizer, [text]) for text in texts], other
        cuts = [int(dice.integers(len(text) // 4, 3 * len(text) // 4 + 1)) for text in texts]
        if len(texts) > 1:
            other = dice.integers(2, size=len(texts))
        steps = dice.integers(1, max(2, len(texts)), size=len(texts))
        rows = []
        for at, (text, cut) in enumerate(zip(texts, cuts, strict=True)):
            strange = texts[(at + steps[at]) % len(texts)]
            rows.append(marked(tokenizer, [text[:cut], strange[-(len(text) - cut) :] if other[at] else text[cut:]]))
        return rows, other

    def _chosen(self, ids: Array, text: Array, tokenizer: TextTokenizer, dice: np.random.Generator) -> Array:
        """(B, T): which tokens are to be said."""
        begins = word_starts(tokenizer)[ids] | ~np.roll(text, 1, 1) if self.whole_words else text
        words = np.cumsum(text & begins, 1)
        chosen = np.zeros(ids.shape, dtype=bool)
        for row, (word, real) in enumerate(zip(words, text, strict=True)):
            wanted, sizes = max(1, round(self.share * int(real.sum()))), np.bincount(word[real])
            for number in dice.permutation(np.flatnonzero(sizes)):
                if wanted >= sizes[number] or not chosen[row].any():
                    chosen[row] |= real & (word == number)
                    wanted -= sizes[number]
                if wanted <= 0:
                    break
        return chosen


@cache
def word_starts(tokenizer: TextTokenizer) -> Array:
    """(V,): whether a token begins a word, as WordPiece (no ##), byte-level BPE (a space) and Unigram (▁) mark it."""
    tokens = [tokenizer.plain.id_to_token(token) or "" for token in range(tokenizer.vocabulary)]
    if any(token.startswith("##") for token in tokens):
        return np.array([not token.startswith("##") for token in tokens])
    if {*tokens}.issuperset(ALPHABET):  # bytes from 128 on are parts of letters
        firsts = [token_bytes(token)[:1] for token in tokens]
        return np.array([first.isascii() and not first.isalnum() for first in firsts])
    return np.array([not token[:1].isalnum() and not token.startswith("<0x") for token in tokens])
