"""DINOv2 (Oquab et al. 2024): ViT with a learned gain on what each part says, and SwiGLU in its largest."""

from __future__ import annotations

from dataclasses import replace

from anyformer.architectures.encoder import Encoder
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, POSITIVE, SIZE, Config, Kind, one_of
from anyformer.checkpoints.names import Fused, Names, sides
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.gated import Gated
from anyformer.feedforward.mlp import MLP
from anyformer.heads.first_and_mean import FirstAndMean
from anyformer.models.answers import labels
from anyformer.models.base import ModelType
from anyformer.models.vit import FF, attention, filed, mixers, patches
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.layer_scale import LayerScale

RESIDUAL = "body.blocks.0.residual"
FORMS = one_of({False: "mlp", True: "gated"})


def plain(width: int) -> Kind[int]:
    """A hidden width, written as a multiple of the stream's."""
    return Kind(f"a whole multiple of {width}", lambda ratio: SIZE.read(ratio) * width, lambda hidden: hidden // width)


def gated(width: int) -> Kind[int]:
    """Two thirds of that, rounded up to a multiple of 8."""
    return Kind(
        f"two thirds of a whole multiple of {width}",
        lambda ratio: (SIZE.read(ratio) * width * 2 // 3 + 7) // 8 * 8,
        lambda hidden: round(hidden * 1.5 / width),
    )


def between(c: Config, width: int) -> MLP | Gated:
    """The feed-forward network of every block."""
    if c.take("use_swiglu_ffn", FORMS, f"{FF}.kind", False) == "gated":
        c.ignore("hidden_act")
        return Gated(hidden=c.take("mlp_ratio", gated(width), f"{FF}.hidden", 4), bias=True)
    return MLP(
        hidden=c.take("mlp_ratio", plain(width), f"{FF}.hidden", 4),
        activation=c.take("hidden_act", ACTIVATIONS, f"{FF}.activation", "gelu"),
    )


def inner(spec: ModelSpec, theirs: str, ours: str) -> Names:
    """The tensors of the feed-forward network, which has one of two forms."""
    assert isinstance(spec, Encoder)
    assert isinstance(spec.body, Stack)
    block = spec.body.blocks[0]
    assert isinstance(block, Block)
    if isinstance(block.ff, MLP):
        return sides({f"{theirs}.mlp.fc1": f"{ours}.ff.up", f"{theirs}.mlp.fc2": f"{ours}.ff.down"})
    fused = {
        f"{theirs}.mlp.weights_in.{side}": Fused((f"{ours}.ff.gate.{side}", f"{ours}.ff.up.{side}"))
        for side in ("weight", "bias")
    }
    return {**fused, **sides({f"{theirs}.mlp.weights_out": f"{ours}.ff.down"})}


class Dinov2(ModelType):
    """DINOv2 (Oquab et al. 2024), whose answer is the stream, or a class read off its first token and all others."""

    classes = ("Dinov2Model", "Dinov2ForImageClassification")
    prefix = "dinov2."

    def declare(self, c: Config, name: str) -> Encoder:
        c.expect("drop_path_rate", 0.0, 0, default=0.0)
        c.ignore("apply_layernorm", "reshape_hidden_states", "out_features", "out_indices", "stage_names")
        width = c.take("hidden_size", SIZE, "width")
        norm = LayerNorm(eps=c.take("layer_norm_eps", POSITIVE, "body.norm.eps", 1e-6))
        residual = LayerScale(norm=norm, first=c.take("layerscale_value", POSITIVE, f"{RESIDUAL}.first", 1.0))
        block = Block(mixer=attention(c), ff=between(c, width), residual=residual)
        masked = c.take("use_mask_token", FLAG, "embedding.mask_token", True)
        return Encoder(
            width=width,
            embedding=replace(patches(c, 14), mask_token=masked),
            dropout=c.take("hidden_dropout_prob", FRACTION, "dropout", 0.0),
            body=Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=norm),
            head=None if name == "Dinov2Model" else FirstAndMean(labels=labels(c)),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "dinov2.encoder.layer.{i}", "body.blocks.{i}"
        norms = {f"{theirs}.norm1": f"{ours}.residual.norm.mixer", f"{theirs}.norm2": f"{ours}.residual.norm.ff"}
        gains = {
            f"{theirs}.layer_scale1.lambda1": f"{ours}.residual.scale.mixer",
            f"{theirs}.layer_scale2.lambda1": f"{ours}.residual.scale.ff",
        }
        return {
            **filed(spec, "dinov2."),
            "dinov2.embeddings.mask_token": "embedding.mask_token",
            **mixers("dinov2."),
            **sides(norms),
            **inner(spec, theirs, ours),
            **gains,
            **sides({"classifier": "head.out"}),
        }
