"""ViT (Dosovitskiy et al. 2021): a pre-norm encoder of an image's patches, behind a class token."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from anyformer.architectures.encoder import Encoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, FRACTION, POSITIVE, SIZE, Config, Kind
from anyformer.checkpoints.names import Names, Rule, Shaped, sides
from anyformer.core.spec import HeadSpec, ModelSpec
from anyformer.embeddings.patches import Patches
from anyformer.feedforward.mlp import MLP
from anyformer.heads.classify import Classify
from anyformer.models.answers import whole_text
from anyformer.models.base import ModelType
from anyformer.models.bert import as_filed, pooled
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


def patches(c: Config, size: int = 16) -> Patches:
    """What enters. size: of a patch, where the config does not say it."""
    return Patches(
        size=c.take("patch_size", SIZE, "embedding.size", size),
        image=c.take("image_size", IMAGE, "embedding.image", 224),
        channels=c.take("num_channels", SIZE, "embedding.channels", 3),
    )


def filed(spec: ModelSpec, prefix: str) -> dict[str, str | Rule | None]:
    """The tensors of the entrance, whose vectors files have with axes of one more. prefix: of a file's names."""
    assert isinstance(spec, Encoder)
    entrance = spec.embedding
    assert isinstance(entrance, Patches)
    height, width = entrance.image if isinstance(entrance.image, tuple) else (entrance.image, entrance.image)
    places = (height // entrance.size) * (width // entrance.size) + 1 + entrance.distillation_token
    theirs, wide = f"{prefix}embeddings", spec.width
    kernel = (wide, entrance.channels, entrance.size, entrance.size)
    return {
        f"{theirs}.cls_token": Shaped(("embedding.class_token",), (1, 1, wide)),
        f"{theirs}.distillation_token": Shaped(("embedding.distillation_token",), (1, 1, wide)),
        f"{theirs}.position_embeddings": Shaped(("embedding.position",), (1, places, wide)),
        f"{theirs}.mask_token": None,  # in the place of hidden patches; here no patch is hidden
        f"{theirs}.patch_embeddings.projection.weight": Shaped(("embedding.proj.weight",), kernel),
        f"{theirs}.patch_embeddings.projection.bias": "embedding.proj.bias",
    }


def mixers(prefix: str) -> dict[str, str]:
    """The tensors of the attention and of the last norm."""
    theirs, ours = f"{prefix}encoder.layer.{{i}}.attention", "body.blocks.{i}.mixer"
    return sides(
        {
            f"{theirs}.attention.query": f"{ours}.q",
            f"{theirs}.attention.key": f"{ours}.k",
            f"{theirs}.attention.value": f"{ours}.v",
            f"{theirs}.output.dense": f"{ours}.o",
            f"{prefix}layernorm": "body.norm",
        }
    )


def layers(prefix: str) -> dict[str, str]:
    """The tensors of the blocks and of the last norm."""
    theirs, ours = f"{prefix}encoder.layer.{{i}}", "body.blocks.{i}"
    rest = {
        f"{theirs}.intermediate.dense": f"{ours}.ff.up",
        f"{theirs}.output.dense": f"{ours}.ff.down",
        f"{theirs}.layernorm_before": f"{ours}.residual.norm.mixer",
        f"{theirs}.layernorm_after": f"{ours}.residual.norm.ff",
    }
    return {**mixers(prefix), **sides(rest)}


def attention(c: Config) -> Softmax:
    """Every block's."""
    return Softmax(
        heads=c.take("num_attention_heads", SIZE, f"{MIXER}.heads"),
        pattern=Full(),
        bias=c.take("qkv_bias", FLAG, f"{MIXER}.bias", True),
        out_bias=True,
        dropout=c.take("attention_probs_dropout_prob", FRACTION, f"{MIXER}.dropout", 0.0),
    )


def encoder(c: Config, entrance: Patches, head: HeadSpec | None) -> Encoder:
    """All but what enters and what is said of it."""
    c.ignore("encoder_stride")  # of a class that paints
    width = c.take("hidden_size", SIZE, "width")
    c.expect("pooler_act", "tanh", default="tanh")
    c.expect("pooler_output_size", width, None, default=width)
    norm = LayerNorm(eps=c.take("layer_norm_eps", POSITIVE, "body.norm.eps", 1e-12))
    lost = c.take("hidden_dropout_prob", FRACTION, "dropout", 0.0)
    ff = MLP(
        hidden=c.take("intermediate_size", SIZE, f"{FF}.hidden"),
        activation=c.take("hidden_act", ACTIVATIONS, f"{FF}.activation", "gelu"),
    )
    block = Block(mixer=attention(c), ff=ff, residual=Pre(norm=norm, dropout=lost))
    return Encoder(
        width=width,
        embedding=entrance,
        dropout=lost,
        body=Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=norm),
        head=head,
    )


class ViT(ModelType):
    """ViT (Dosovitskiy et al. 2021)."""

    classes = ("ViTForImageClassification", "ViTModel")
    prefix = "vit."

    def declare(self, c: Config, name: str) -> Encoder:
        return encoder(c, patches(c), pooled(c) if name == "ViTModel" else whole_text(c, Classify()))

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        return as_filed(spec, tensors, "vit.pooler.dense.weight")

    def names(self, spec: ModelSpec) -> Names:
        heads = sides({"classifier": "head.out", "vit.pooler.dense": "head.pooler.dense"})
        return {**filed(spec, "vit."), **layers("vit."), **heads}
