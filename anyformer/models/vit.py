"""ViT (Dosovitskiy et al. 2021): a pre-norm encoder of an image's patches, behind a class token."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from anyformer.architectures.encoder import Encoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, POSITIVE, SIZE, Config, Kind
from anyformer.checkpoints.names import Names, Rule, Shaped
from anyformer.core.spec import ModelSpec
from anyformer.embeddings.patches import Patches
from anyformer.feedforward.mlp import MLP
from anyformer.heads.classify import Classify
from anyformer.models.answers import whole_text
from anyformer.models.base import ModelType
from anyformer.models.bert import as_filed, pooled, sides
from anyformer.norms.layer import LayerNorm
from anyformer.patterns.full import Full
from anyformer.residuals.pre import Pre

MIXER, FF = "body.blocks.0.mixer", "body.blocks.0.ff"


def _read(value: Any) -> int | tuple[int, int]:
    if not isinstance(value, list):
        return SIZE.read(value)
    height, width = map(SIZE.read, value)
    return height, width


IMAGE: Kind[int | tuple[int, int]] = Kind(
    f"{SIZE.what}, or a list of height and width", _read, lambda value: value if isinstance(value, int) else list(value)
)


def patches(c: Config) -> Patches:
    """What enters."""
    return Patches(
        size=c.take("patch_size", SIZE, "embedding.size", 16),
        image=c.take("image_size", IMAGE, "embedding.image", 224),
        channels=c.take("num_channels", SIZE, "embedding.channels", 3),
    )


def filed(spec: ModelSpec, prefix: str) -> dict[str, str | Rule | None]:
    """The tensors of the entrance, whose vectors files have with axes of one more. prefix: of a file's names."""
    assert isinstance(spec, Encoder)
    entrance = spec.embedding
    assert isinstance(entrance, Patches)
    height, width = entrance.image if isinstance(entrance.image, tuple) else (entrance.image, entrance.image)
    places = (height // entrance.size) * (width // entrance.size) + 1
    theirs, wide = f"{prefix}embeddings", spec.width
    kernel = (wide, entrance.channels, entrance.size, entrance.size)
    return {
        f"{theirs}.cls_token": Shaped(("embedding.class_token",), (1, 1, wide)),
        f"{theirs}.position_embeddings": Shaped(("embedding.position",), (1, places, wide)),
        f"{theirs}.mask_token": None,  # in the place of hidden patches; here no patch is hidden
        f"{theirs}.patch_embeddings.projection.weight": Shaped(("embedding.proj.weight",), kernel),
        f"{theirs}.patch_embeddings.projection.bias": "embedding.proj.bias",
    }


def layers(prefix: str) -> dict[str, str]:
    """The tensors of the blocks and of the last norm."""
    theirs, ours = f"{prefix}encoder.layer.{{i}}", "body.blocks.{i}"
    return sides(
        {
            f"{theirs}.attention.attention.query": f"{ours}.mixer.q",
            f"{theirs}.attention.attention.key": f"{ours}.mixer.k",
            f"{theirs}.attention.attention.value": f"{ours}.mixer.v",
            f"{theirs}.attention.output.dense": f"{ours}.mixer.o",
            f"{theirs}.intermediate.dense": f"{ours}.ff.up",
            f"{theirs}.output.dense": f"{ours}.ff.down",
            f"{theirs}.layernorm_before": f"{ours}.residual.norm.mixer",
            f"{theirs}.layernorm_after": f"{ours}.residual.norm.ff",
            f"{prefix}layernorm": "body.norm",
        }
    )


class ViT(ModelType):
    """ViT (Dosovitskiy et al. 2021)."""

    classes = ("ViTForImageClassification", "ViTModel")
    prefix = "vit."

    def declare(self, c: Config, name: str) -> Encoder:
        c.ignore("encoder_stride")  # of a class that paints
        width = c.take("hidden_size", SIZE, "width")
        c.expect("pooler_act", "tanh", default="tanh")
        c.expect("pooler_output_size", width, None, default=width)
        norm = LayerNorm(eps=c.take("layer_norm_eps", POSITIVE, "body.norm.eps", 1e-12))
        lost = c.take("hidden_dropout_prob", FRACTION, "dropout", 0.0)
        mixer = Softmax(
            heads=c.take("num_attention_heads", SIZE, f"{MIXER}.heads"),
            pattern=Full(),
            bias=c.take("qkv_bias", FLAG, f"{MIXER}.bias", True),
            out_bias=True,
            dropout=c.take("attention_probs_dropout_prob", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        ff = MLP(
            hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
            activation=c.take("hidden_act", ACTIVATIONS, f"{FF}.activation", "gelu"),
        )
        block = Block(mixer=mixer, ff=ff, residual=Pre(norm=norm, dropout=lost))
        return Encoder(
            width=width,
            embedding=patches(c),
            dropout=lost,
            body=Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=norm),
            head=pooled(c) if name == "ViTModel" else whole_text(c, Classify()),
        )

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, "vit.pooler.dense.weight")

    def names(self, spec: ModelSpec) -> Names:
        heads = sides({"classifier": "head.out", "vit.pooler.dense": "head.pooler.dense"})
        return {**filed(spec, "vit."), **layers("vit."), **heads}
