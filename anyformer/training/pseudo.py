"""Pseudo-perplexity (Salazar et al. 2020): each token said from all others of its text, one hidden at a time.

PPPL = exp(-(1 / N) sum_t log p(w_t | W without w_t)). Within words (Kauf & Ivanova 2023, PLL-word-l2r) what
comes after w_t in its word is hidden too, since it would give it away. It is no probability of the text, so that there
are no bits per byte of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.context import Where
from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.data.token_file import TokenFile
from anyformer.data.tokenizer import TextTokenizer
from anyformer.training.objectives.inputs import around
from anyformer.training.objectives.masked import word_starts
from anyformer.training.objectives.streams import check_words, longest_of
from anyformer.training.reading import Reading, Scores, documents_of, refuse_wide
from anyformer.training.scores import per_token
from anyformer.training.told import looks_ahead

if TYPE_CHECKING:
    from anyformer.recipes.schema import Training
    from anyformer.training.objectives.base import Figure


@dataclass(frozen=True)
class Pseudo(Reading):
    """window: tokens that are read together, the marks around them included; None: those of training.

    A longer document is read in such parts, one after the other. words: hide what comes after a token in its word.
    """

    window: int | None = None
    words: bool = False

    def size(self, training: Training) -> int:
        return self.window or training.length

    def check(self, model: Model, tokenizer: TextTokenizer) -> None:
        if tokenizer.mask is None:
            raise ConfigError("pseudo-perplexity hides tokens, and this model's tokenizer has no mask token")
        check_words(model, "pseudo-perplexity")
        if isinstance(model, EncoderDecoderModel) or not looks_ahead(model, tokenizer.vocabulary):
            raise ConfigError(
                "pseudo-perplexity needs an encoder, whose tokens see both sides; of a decoder take the perplexity"
            )
        least = sum(map(len, around(tokenizer))) + 1
        if self.window is not None and self.window < least:
            raise ConfigError(f"a window has at least {least} tokens, marks and one to be said; came {self.window}")
        if self.window is not None:
            refuse_wide(self.window, model)

    def scores(self, model: Model, text: TokenFile, tokenizer: TextTokenizer, training: Training) -> Scores:
        before, after = around(tokenizer)
        size = self.size(training)
        if (longest := longest_of(model)) is not None:
            size = min(size, longest)
        for start, end in self._parts(text, tokenizer, size - len(before) - len(after)):
            ids = np.array([*before, *text.tokens[start:end].tolist(), *after])
            rows = max(1, training.batch * training.length // len(ids))
            for first in range(start, end, rows):
                places = np.arange(first, min(first + rows, end))
                yield places, self._said(model, ids, places - start + len(before), tokenizer)

    def figures(self, text: TokenFile, tokenizer: TextTokenizer) -> dict[str, Figure]:
        loss, perplexity = per_token().values()
        return {"loss": loss, "pseudo_perplexity": perplexity}

    def _parts(self, text: TokenFile, tokenizer: TextTokenizer, size: int) -> Iterator[tuple[int, int]]:
        """Where each part begins and ends, without the begin and end tokens of documents."""
        for start, end in documents_of(text):
            start += tokenizer.begin is not None
            end -= tokenizer.end not in (None, tokenizer.begin)
            yield from ((first, min(first + size, end)) for first in range(start, end, size))

    def _said(self, model: Model, ids: NDArray[Any], places: NDArray[Any], tokenizer: TextTokenizer) -> NDArray[Any]:
        """The nats of the tokens at these places, a row each."""
        every = np.arange(len(ids))
        hidden = every == places[:, None]
        if self.words:
            words = np.cumsum(word_starts(tokenizer)[ids])
            before, after = around(tokenizer)
            text = ~np.isin(ids, [*before, *after])
            hidden |= (words == words[places][:, None]) & (every > places[:, None]) & text
        device, head = next(model.parameters()).device, model.head
        assert head is not None and tokenizer.mask is not None  # `check` has seen to it
        rows = torch.from_numpy(np.where(hidden, tokenizer.mask, ids)).to(device)
        at = torch.from_numpy(places).to(device)
        wanted = torch.from_numpy(ids[places]).to(device)[:, None]

        def read(h: Tensor, where: Where) -> Tensor:
            return head.loss(h[torch.arange(len(h), device=device), at][:, None], wanted, where)

        return model.read(rows, read)[:, 0].double().cpu().numpy()
