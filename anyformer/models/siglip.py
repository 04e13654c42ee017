"""SigLIP (Zhai et al. 2023): a text and an image, each as one vector; whether they belong together, pair by pair.

Texts are filled up to one length, and what fills them is read as well; give no `lengths`.
"""

from __future__ import annotations

from math import log

from anyformer.architectures.encoder import Encoder
from anyformer.architectures.two_towers import TwoTowers
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import SIZE, Config, or_none
from anyformer.checkpoints.names import Fused, Names, Shaped, sides
from anyformer.core.spec import ModelSpec
from anyformer.embeddings.patches import Patches
from anyformer.feedforward.mlp import MLP
from anyformer.heads.probe import Probe
from anyformer.heads.sentence import Sentence
from anyformer.models.base import ModelType
from anyformer.models.clip import FIRST_SCALE, layers, tower
from anyformer.patterns.full import Full
from anyformer.positions.learned import Learned


def blocks(c: Config, at: str) -> Stack:
    """One tower's. at: where they stand."""
    return tower(c, at, Full(), heads=12, hidden=3072, eps=1e-6, activation="gelu_pytorch_tanh")


def images(c: Config) -> Encoder:
    """The tower of images, whose head is made as its blocks are."""
    c.expect("vision_use_head", True, default=True)
    body = blocks(c, "image.body")
    block = body.blocks[0]
    assert isinstance(block, Block)
    assert isinstance(block.mixer, Softmax)
    assert isinstance(block.ff, MLP)
    return Encoder(
        width=c.take("hidden_size", SIZE, "image.width", 768),
        embedding=Patches(
            size=c.take("patch_size", SIZE, "image.embedding.size", 16),
            image=c.take("image_size", SIZE, "image.embedding.image", 224),
            channels=c.take("num_channels", SIZE, "image.embedding.channels", 3),
            class_token=False,
        ),
        body=body,
        head=Probe(heads=block.mixer.heads, norm=body.norm, ff=block.ff),
    )


class SigLIP(ModelType):
    """SigLIP (Zhai et al. 2023)."""

    classes = ("SiglipModel",)

    def declare(self, c: Config, name: str) -> TwoTowers:
        c.ignore("tie_word_embeddings")
        text, image = c.part("text_config", {}), c.part("vision_config", {})
        assert text is not None
        assert image is not None
        width = text.take("hidden_size", SIZE, "width", 768)
        size = text.take("projection_size", or_none(SIZE), "head.size", width)
        return TwoTowers(
            vocabulary=text.take("vocab_size", SIZE, "vocabulary", 32_000),
            width=width,
            position=Learned(length=text.take("max_position_embeddings", SIZE, "position.length", 64)),
            body=blocks(text, "body"),
            head=Sentence(pool="last", size=size or width, bias=True),
            image=images(image),
            pairs="sigmoid",
            # CLIP's key, which others pass over: where training began, for the paper at 10
            scale=c.take("logit_scale_init_value", FIRST_SCALE, "scale", log(10)),
        )

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, TwoTowers)
        assert isinstance(spec.image, Encoder)
        assert isinstance(spec.image.embedding, Patches)
        entrance = spec.image.embedding
        kernel = (spec.image.width, entrance.channels, entrance.size, entrance.size)
        text, image = "text_model", "vision_model"
        parts = {
            f"{text}.final_layer_norm": "body.norm",
            f"{text}.head": "head.out",
            f"{image}.post_layernorm": "image.body.norm",
            f"{image}.head.attention.out_proj": "image.head.attention.o",
            f"{image}.head.layernorm": "image.head.norm",
            f"{image}.head.mlp.fc1": "image.head.ff.up",
            f"{image}.head.mlp.fc2": "image.head.ff.down",
        }
        fused = {
            f"{image}.head.attention.in_proj_{side}": Fused(
                tuple(f"image.head.attention.{part}.{side}" for part in "qkv")
            )
            for side in ("weight", "bias")
        }
        return {
            "logit_scale": Shaped(("scale",), (1,)),
            "logit_bias": Shaped(("bias",), (1,)),
            f"{text}.embeddings.token_embedding.weight": "embedding.weight",
            f"{text}.embeddings.position_embedding.weight": "position.weight",
            f"{text}.embeddings.position_ids": None,
            f"{image}.embeddings.patch_embedding.weight": Shaped(("image.embedding.proj.weight",), kernel),
            f"{image}.embeddings.patch_embedding.bias": "image.embedding.proj.bias",
            f"{image}.embeddings.position_embedding.weight": "image.embedding.position",
            f"{image}.embeddings.position_ids": None,
            f"{image}.head.probe": Shaped(("image.head.probe",), (1, 1, spec.image.width)),
            **fused,
            **sides(parts),
            **layers(text, "body"),
            **layers(image, "image.body"),
        }
