"""Encoder and decoder (Vaswani et al. 2017; Phuong & Hutter 2022, algorithm 8): one sequence in, another one out."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from anyformer.architectures.tokens import Entrance, OverTokens
from anyformer.core.call import check_entry, real_tokens
from anyformer.core.clock import check_longest, clock
from anyformer.core.context import Context, Source
from anyformer.core.layer import Layer
from anyformer.core.modality import placed
from anyformer.core.model import Model
from anyformer.core.roles import AnyLayer, Embedding, Head, Norm, Position
from anyformer.core.spec import Ref, Site, Size, spec
from anyformer.core.state import Past, Room
from anyformer.core.tape import Tape
from anyformer.heads.tied import Tied
from anyformer.norms.nothing import NoNorm
from anyformer.positions.none import NoPosition

SOURCE = "source"


@spec
class EncoderDecoder(OverTokens):
    """One sequence in, another one out (Vaswani et al. 2017); decoder blocks read the source by a `cross` mixer.

    source_embedding, source_position, source_norm: of the encoder's side; a Ref shares the decoder's.
    source_vocabulary: None: the same.
    """

    source_vocabulary: Size | None = None
    encoder: AnyLayer
    decoder: AnyLayer
    source_embedding: Embedding = Ref("embedding")
    source_position: Position = NoPosition()
    source_norm: Norm = NoNorm()
    head: Head | None = Tied()

    def make(self, at: Site) -> EncoderDecoderModel:
        return EncoderDecoderModel(self, at)


class EncoderDecoderModel(Model):
    """`model(ids, sources={"source": model.encode(source_ids)})`."""

    encoder: Layer
    decoder: Layer

    def __init__(self, spec: EncoderDecoder, at: Site) -> None:
        super().__init__(spec, at)
        self.enter = Entrance(self, at, spec.embedding, spec.position, spec.norm, spec.dropout)
        self.longest = self.enter.longest
        self.source_vocabulary = spec.source_vocabulary or spec.vocabulary
        if isinstance(spec.source_embedding, Ref) and self.source_vocabulary != spec.vocabulary:
            raise ValueError(
                f"source_vocabulary: {self.source_vocabulary} tokens cannot share a table of {spec.vocabulary}; give "
                "the source an embedding of its own, source_embedding: tokens"
            )
        theirs = replace(at, vocabulary=self.source_vocabulary, labels=frozenset())
        sources = (spec.source_embedding, spec.source_position, spec.source_norm)
        self.enter_source = Entrance(self, theirs, *sources, spec.dropout, prefix="source_")
        self.hold(theirs, "encoder", spec.encoder)
        self.hold(at, "decoder", spec.decoder, sources=frozenset({SOURCE}))
        self.hold_head(at, spec.head)

    def encode(
        self,
        ids: Tensor,
        lengths: Tensor | None = None,
        side: str = "right",
        *,
        tape: Tape | None = None,
        checkpoint: bool = False,
    ) -> Source:
        """The source as vectors, once for all calls that read it: ids (B, S), or what enters in their place.

        tape, checkpoint: as in a call.
        """
        embedding = self.enter_source.embedding
        check_entry(ids, embedding, self.source_vocabulary, padded=lengths is not None)
        places, coords = placed(ids, embedding, None)
        real = real_tokens(places, lengths, side, None)
        where, _ = clock(places, real, {}, None, coords)
        check_longest(where, self.enter_source.longest)
        ctx = Context(where, tape=tape, checkpoint=checkpoint, straight=real is None)
        out, _ = self.encoder(self.enter_source(ids, where), ctx, None)
        return Source(out, where)

    def hidden(self, ids: Tensor, ctx: Context, past: Past) -> tuple[Tensor, Past]:
        return self.decoder(ctx.point(self.path, "embedding", self.enter(ids, ctx.where)), ctx, past)

    def init_body(self, room: Room) -> Past:
        return self.decoder.init_state(room)

    def rewind_body(self, past: Past, until: Tensor) -> Past:
        return self.decoder.rewind(past, until)
