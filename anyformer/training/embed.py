"""`embed`: a vector for each text, of whatever model reads texts (Sentence-BERT; Reimers & Gurevych 2019).

e = pool(h_1 … h_T), of the stream at the model's end. All real tokens count, also those that the tokenizer puts around
a text ([CLS], [SEP]); padding does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.context import Where
from anyformer.core.errors import InputError, NumericalStop
from anyformer.core.modality import Modality
from anyformer.core.model import Model
from anyformer.data.base import Row
from anyformer.data.tokenizer import TextTokenizer
from anyformer.heads.pooling import Pool, pool
from anyformer.heads.sentence import SentenceHead
from anyformer.training.objectives.inputs import around
from anyformer.training.objectives.rows import text_of

AHEAD = 2048  # texts that are read and put in order of length
TOKENS = 2**13  # of a batch, with the padding, unless one text alone has more

Text = str | Row | InputError


def embed(model: Model, texts: Iterable[str], pool: Pool | None = None, normalize: bool | None = None) -> Tensor:
    """(N, E): the vector of each text, in order, in float32 at least.

    pool: how the stream (N, T, C) becomes (N, C); None: as the head says where it is a `sentence`, else the mean.
    normalize: to length 1; None: as the head says where it pools, else not. A text that is longer than the model's
    context is cut, and a warning tells it. InputError: a text cannot be read, it is named by its number; NumericalStop:
    a vector is no number.
    """
    if isinstance(texts, str):
        raise ValueError("texts must be a list of texts; came one text: put it in a list")
    embedder, found = Embedder.of(model, pool, normalize), []
    for number, vector in enumerate(embedder.vectors(texts), 1):
        if isinstance(vector, InputError):
            raise InputError(f"text {number}: {vector}")
        if not vector.isfinite().all():
            raise NumericalStop(f"text {number}: the vector is no number: the model's weights are no use")
        found.append(vector)
    return torch.stack(found) if found else torch.empty(0, 0)


@dataclass(frozen=True)
class Embedder:
    """A model that reads texts. pooled: the vectors of a stream. longest: tokens that are read of a text; None: all.

    before, after: what stands around each text.
    """

    model: Model
    tokenizer: TextTokenizer
    pooled: Callable[[Tensor, Where], Tensor]
    longest: int | None
    before: Sequence[int]
    after: Sequence[int]

    @staticmethod
    def of(model: Model, pool: Pool | None = None, normalize: bool | None = None) -> Embedder:
        """Arguments: as in `embed`."""
        with_encoder = isinstance(model, EncoderDecoderModel)
        tokenizer = model.source_tokenizer if with_encoder else model.tokenizer
        enter = model.enter_source.embedding if with_encoder else model.embedding
        if not isinstance(tokenizer, TextTokenizer) or isinstance(enter, Modality):
            raise InputError("this model reads no text: it has no tokenizer, or what enters is no text")
        bounds = (model.enter_source.longest if with_encoder else model.longest, model.spec.to_dict().get("context"))
        longest = min((bound for bound in bounds if bound is not None), default=None)
        return Embedder(model, tokenizer, _pooling(model, pool, normalize), longest, *around(tokenizer))

    @torch.no_grad()
    def vectors(self, texts: Iterable[Text]) -> Iterator[Tensor | InputError]:
        """The vector (E,) of each text, or what is wrong with it; a text that is an error already stays one.

        No more than some thousand texts are held at a time.
        """
        left, cut = iter(texts), 0
        while some := list(islice(left, AHEAD)):
            coded = [self._coded(text) for text in some]
            cut += sum(long for _, long in coded)
            rows = [(at, ids) for at, (ids, _) in enumerate(coded) if not isinstance(ids, InputError)]
            found: dict[int, Tensor] = {}
            for batch in batches(sorted(rows, key=lambda row: len(row[1]))):
                found.update(zip((at for at, _ in batch), self._together([ids for _, ids in batch]), strict=True))
            yield from (ids if isinstance(ids, InputError) else found[at] for at, (ids, _) in enumerate(coded))
        if cut:
            warnings.warn(
                f"{cut} text{'s are' if cut > 1 else ' is'} longer than {self.longest} tokens: the rest is not read",
                stacklevel=2,
            )

    def _coded(self, text: Text) -> tuple[list[int] | InputError, bool]:
        """The tokens of a text with those around it, and whether the text was cut."""
        try:
            if isinstance(text, InputError):
                raise text
            plain = self.tokenizer.encode(text if isinstance(text, str) else text_of(text, "text"))
            if not (self.before or plain or self.after):
                raise InputError("has no tokens")
        except InputError as error:
            return error, False
        room = len(plain) if self.longest is None else self.longest - len(self.before) - len(self.after)
        return [*self.before, *plain[: max(room, 0)], *self.after][: self.longest], len(plain) > room

    def _together(self, rows: list[list[int]]) -> Tensor:
        """(B, E) of texts that are about as long as each other."""
        device = next(self.model.parameters()).device
        counts, most = [len(row) for row in rows], max(map(len, rows))
        ids = torch.tensor([row + [0] * (most - len(row)) for row in rows], device=device)
        padded = min(counts) < most  # which costs a mask
        lengths = torch.tensor(counts, device=device) if padded else None
        if isinstance(self.model, EncoderDecoderModel):
            source = self.model.encode(ids, lengths)
            found = self.pooled(source.vectors, source.where)
        else:
            found = self.model.read(ids, self.pooled, lengths=lengths)
        return found.cpu()


def batches(rows: Sequence[tuple[int, list[int]]]) -> Iterator[Sequence[tuple[int, list[int]]]]:
    """Rows that are sorted by length, the shortest first, in batches of a bounded size."""
    first = 0
    for at, (_, ids) in enumerate(rows):
        if at > first and (at - first + 1) * len(ids) > TOKENS:
            yield rows[first:at]
            first = at
    if rows:
        yield rows[first:]


def _pooling(model: Model, how: Pool | None, normalize: bool | None) -> Callable[[Tensor, Where], Tensor]:
    """What makes vectors of a stream: the head's own way, or another."""
    own = model.head if how is None and isinstance(model.head, SentenceHead) else None
    unit = normalize if normalize is not None else own is not None and own.unit

    def pooled(h: Tensor, where: Where) -> Tensor:
        found = pool(exact(h), where, how or "mean") if own is None else exact(own.raw(h, where))
        return F.normalize(found, dim=-1) if unit else found

    return pooled


def exact(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
