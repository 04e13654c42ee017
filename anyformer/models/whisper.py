"""Whisper (Radford et al. 2022): BART's layers with norms in front and keys without a bias, from sound to text."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.encoder_decoder import EncoderDecoder
from anyformer.checkpoints.config import SIZE, Config
from anyformer.checkpoints.names import Names, sides
from anyformer.core.spec import ModelSpec
from anyformer.embeddings.frames import Frames
from anyformer.heads.tied import Tied
from anyformer.models.bart import OLD_KEYS, dropout, stack, tensors
from anyformer.models.base import ModelType
from anyformer.models.llama import no_padding
from anyformer.norms.layer import LayerNorm
from anyformer.positions.learned import Learned
from anyformer.residuals.pre import Pre

# of another class, of training alone, or never applied
UNREAD_KEYS = (
    "classifier_proj_size",
    "forced_decoder_ids",
    "mask_feature_length",
    "mask_feature_min_masks",
    "mask_feature_prob",
    "mask_time_length",
    "mask_time_min_masks",
    "mask_time_prob",
    "median_filter_width",
    "scale_embedding",
    "use_weighted_layer_sum",
)


class Whisper(ModelType):
    """Whisper (Radford et al. 2022)."""

    classes = ("WhisperForConditionalGeneration", "WhisperModel")
    prefix = "model."
    ties: ClassVar = {"proj_out.weight": "embedding.weight"}

    def declare(self, c: Config, name: str) -> EncoderDecoder:
        c.ignore(*OLD_KEYS, *UNREAD_KEYS)
        no_padding(c)
        c.expect("apply_spec_augment", False, default=False)
        c.expect("tie_word_embeddings", True, default=True)
        lost = dropout(c, 0.0)
        heard = c.take("max_source_positions", SIZE, "source_position.length", 1500)
        residual = Pre(dropout=lost)
        return EncoderDecoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=c.take("d_model", SIZE, "width"),
            position=Learned(length=c.take("max_target_positions", SIZE, "position.length", 448)),
            dropout=lost,
            source_embedding=Frames(channels=c.take("num_mel_bins", SIZE, "source_embedding.channels", 80)),
            source_position=Learned(length=heard, trainable=False),
            encoder=stack(c, "encoder", residual, LayerNorm(), k_bias=False),
            decoder=stack(c, "decoder", residual, LayerNorm(), k_bias=False),
            head=None if name == "WhisperModel" else Tied(),
        )

    def names(self, spec: ModelSpec) -> Names:
        ears = {
            "model.encoder.conv1": "source_embedding.first",
            "model.encoder.conv2": "source_embedding.second",
        }
        return tensors({"model.decoder.embed_tokens.weight": "embedding.weight", **sides(ears)})
