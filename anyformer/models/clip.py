"""CLIP (Radford et al. 2021): a causal text and an image, each as one vector, compared.

A text ends with the highest id of all; give `lengths` up to it, for there its vector is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import exp, log
from typing import Any

from anyformer.architectures.encoder import Encoder
from anyformer.architectures.two_towers import TwoTowers
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FRACTION, NUMBER, POSITIVE, SIZE, Config, Kind
from anyformer.checkpoints.names import Names, Shaped, sides
from anyformer.core.errors import InputError
from anyformer.core.spec import ModelSpec
from anyformer.embeddings.patches import Patches
from anyformer.feedforward.mlp import MLP
from anyformer.heads.sentence import Sentence
from anyformer.models.base import ModelType
from anyformer.norms.layer import LayerNorm
from anyformer.patterns.base import Pattern
from anyformer.patterns.causal import Causal
from anyformer.patterns.full import Full
from anyformer.positions.learned import Learned
from anyformer.residuals.pre import Pre

# of both towers' configs, which nothing reads
UNREAD_KEYS = ("dropout", "projection_dim", "tie_word_embeddings")
TWICE = {"text_config_dict": "text_config", "vision_config_dict": "vision_config"}
# in digits that come back when they are written and read again: it is where training began
FIRST_SCALE = Kind(NUMBER.what, lambda value: round(exp(NUMBER.read(value)), 6), lambda scale: round(log(scale), 9))
# read where the text ends, which is told by `lengths`; written 2, which readers take for the highest id
ENDS = Kind("an id", lambda _: None, lambda _: 2)


def tower(
    c: Config,
    at: str,
    pattern: Pattern,
    heads: int,
    hidden: int,
    eps: float = 1e-5,
    activation: str = "quick_gelu",
) -> Stack:
    """Pre-norm blocks. at: where they stand. heads, hidden, eps, activation: where the config does not say them."""
    c.ignore(*UNREAD_KEYS)
    first = f"{at}.blocks.0"
    norm = LayerNorm(eps=c.take("layer_norm_eps", POSITIVE, f"{at}.norm.eps", eps))
    mixer = Softmax(
        heads=c.take("num_attention_heads", SIZE, f"{first}.mixer.heads", heads),
        pattern=pattern,
        bias=True,
        dropout=c.take("attention_dropout", FRACTION, f"{first}.mixer.dropout", 0.0),
    )
    ff = MLP(
        hidden=c.take("intermediate_size", SIZE, f"{first}.ff.hidden", hidden),
        activation=c.take("hidden_act", ACTIVATIONS, f"{first}.ff.activation", activation),
    )
    block = Block(mixer=mixer, ff=ff, residual=Pre(norm=norm))
    return Stack(blocks=(block,) * c.count("num_hidden_layers", f"{at}.blocks", 12), norm=norm)


def images(c: Config, size: int) -> Encoder:
    """The tower of images. size: of its vectors."""
    body = tower(c, "image.body", Full(), 12, 3072)
    return Encoder(
        width=c.take("hidden_size", SIZE, "image.width", 768),
        embedding=Patches(
            size=c.take("patch_size", SIZE, "image.embedding.size", 32),
            image=c.take("image_size", SIZE, "image.embedding.image", 224),
            channels=c.take("num_channels", SIZE, "image.embedding.channels", 3),
            bias=False,
        ),
        norm=body.norm,
        body=body,
        head=Sentence(pool="first", size=size),
    )


def layers(theirs: str, ours: str) -> dict[str, str]:
    """The tensors of one tower's blocks."""
    within = {
        **{f"self_attn.{part}_proj": f"mixer.{part}" for part in "qkv"},
        "self_attn.out_proj": "mixer.o",
        "mlp.fc1": "ff.up",
        "mlp.fc2": "ff.down",
        "layer_norm1": "residual.norm.mixer",
        "layer_norm2": "residual.norm.ff",
    }
    return sides(
        {f"{theirs}.encoder.layers.{{i}}.{name}": f"{ours}.blocks.{{i}}.{part}" for name, part in within.items()}
    )


class Clip(ModelType):
    """CLIP (Radford et al. 2021)."""

    classes = ("CLIPModel",)

    def read(self, tree: Mapping[str, Any], where: str, allow: Collection[str] = ()) -> ModelSpec:
        """Old files say each tower twice, the second time in short, where what is left out is as usual."""
        once = {key: value for key, value in tree.items() if key not in TWICE}
        spec = super().read(once, where, allow)
        for short, whole in TWICE.items():
            if (told := tree.get(short)) is not None and super().read({**once, whole: told}, where, allow) != spec:
                raise InputError(f"{where}: {short} says otherwise than {whole}; take the wrong one of them out")
        return spec

    def declare(self, c: Config, name: str) -> TwoTowers:
        c.ignore("tie_word_embeddings")
        text, image = c.part("text_config", {}), c.part("vision_config", {})
        assert text is not None
        assert image is not None
        size = c.take("projection_dim", SIZE, "head.size", 512)
        text.take("eos_token_id", ENDS, "vocabulary", None)
        length = text.take("max_position_embeddings", SIZE, "position.length", 77)
        return TwoTowers(
            vocabulary=text.take("vocab_size", SIZE, "vocabulary", 49_408),
            width=text.take("hidden_size", SIZE, "width", 512),
            position=Learned(length=length),
            body=tower(text, "body", Causal(), 8, 2048),
            head=Sentence(pool="last", size=size),
            image=images(image, size),
            scale=c.take("logit_scale_init_value", FIRST_SCALE, "scale", 2.6592),
        )

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, TwoTowers)
        assert isinstance(spec.image, Encoder)
        assert isinstance(spec.image.embedding, Patches)
        wide, entrance = spec.image.width, spec.image.embedding
        kernel = (wide, entrance.channels, entrance.size, entrance.size)
        text, image = "text_model", "vision_model"
        norms = {
            f"{text}.final_layer_norm": "body.norm",
            f"{image}.pre_layrnorm": "image.norm",
            f"{image}.post_layernorm": "image.body.norm",
        }
        return {
            "logit_scale": "scale",
            f"{text}.embeddings.token_embedding.weight": "embedding.weight",
            f"{text}.embeddings.position_embedding.weight": "position.weight",
            f"{text}.embeddings.position_ids": None,
            f"{image}.embeddings.class_embedding": Shaped(("image.embedding.class_token",), (wide,)),
            f"{image}.embeddings.patch_embedding.weight": Shaped(("image.embedding.proj.weight",), kernel),
            f"{image}.embeddings.position_embedding.weight": "image.embedding.position",
            f"{image}.embeddings.position_ids": None,
            "text_projection.weight": "head.out.weight",
            "visual_projection.weight": "image.head.out.weight",
            **sides(norms),
            **layers(text, "body"),
            **layers(image, "image.body"),
        }
