"""Texts beside images: CLIP and SigLIP as `transformers` computes them, and what two towers refuse."""

from typing import Any

import pytest
import torch
from oracles.published import redrawn
from oracles.saved import CLOSE, drawn, filled, saved
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict

EPS = 0.03
NORM = {"kind": "layer", "eps": EPS}
SIDE = {"num_hidden_layers": 2, "layer_norm_eps": EPS}
IMAGE = {**SIDE, "hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20, "num_channels": 2}
IMAGE |= {"patch_size": 3, "image_size": 12}
TEXT = {**SIDE, "vocab_size": 30, "num_attention_heads": 2, "intermediate_size": 28, "max_position_embeddings": 9}
TEXT |= {"bos_token_id": 0, "pad_token_id": 1}
END = 29
RENAMES = [
    ("logit_scale", "scale"),
    ("logit_bias", "bias"),
    ("vision_model.", "image."),
    ("text_model.head", "head.out"),
    ("text_model.", ""),
    ("image.head.attention.out_proj", "image.head.attention.o"),
    ("image.head.layernorm", "image.head.norm"),
    ("embeddings.token_embedding", "embedding"),
    ("image.embeddings.position_embedding.weight", "image.embedding.position"),
    ("embeddings.position_embedding", "position"),
    ("embeddings.class_embedding", "embedding.class_token"),
    ("embeddings.patch_embedding", "embedding.proj"),
    ("encoder.layers.", "body.blocks."),
    ("layer_norm1", "residual.norm.mixer"),
    ("layer_norm2", "residual.norm.ff"),
    ("pre_layrnorm", "norm"),
    ("post_layernorm", "body.norm"),
    ("final_layer_norm", "body.norm"),
    ("self_attn", "mixer"),
    ("q_proj", "q"),
    ("k_proj", "k"),
    ("v_proj", "v"),
    ("out_proj", "o"),
    ("mlp.fc1", "ff.up"),
    ("mlp.fc2", "ff.down"),
    ("image.head.mlp", "image.head.ff"),
    ("visual_projection", "image.head.out"),
    ("text_projection", "head.out"),
]


def stack(heads: int, hidden: int, activation: str, pattern: str) -> dict[str, Any]:
    mixer = {"kind": "softmax", "heads": heads, "pattern": pattern, "bias": True}
    ff = {"kind": "mlp", "hidden": hidden, "activation": activation}
    block = {"kind": "block", "mixer": mixer, "ff": ff, "residual": {"kind": "pre", "norm": NORM}}
    return {"kind": "stack", "blocks": [block, block], "norm": NORM}


def towers(width: int, activation: str, pattern: str, image: dict[str, Any], **fields: Any) -> dict[str, Any]:
    patches = {"kind": "patches", "size": 3, "image": 12, "channels": 2, **image.pop("embedding")}
    body = stack(3, 20, activation, "full")
    return {
        "kind": "two_towers",
        "width": width,
        "vocabulary": 30,
        "position": {"kind": "learned", "length": 9},
        "body": stack(2, 28, activation, pattern),
        "image": {"kind": "encoder", "width": 12, "embedding": patches, "body": body, **image},
        **fields,
    }


def clip() -> dict[str, Any]:
    image = {"embedding": {"bias": False}, "norm": NORM, "head": {"kind": "sentence", "pool": "first", "size": 7}}
    return towers(16, "quick_gelu", "causal", image, head={"kind": "sentence", "pool": "last", "size": 7})


def siglip() -> dict[str, Any]:
    probe = {"kind": "probe", "heads": 3, "norm": NORM}
    probe["ff"] = {"kind": "mlp", "hidden": 20, "activation": "gelu_tanh"}
    head = {"kind": "sentence", "pool": "last", "size": 12, "bias": True}
    image = {"embedding": {"class_token": False}, "head": probe}
    return towers(12, "gelu_tanh", "full", image, head=head, pairs="sigmoid")


def agree(model: Any, want: Any, texts: Tensor, pixels: Tensor) -> None:
    images = model.image(pixels)
    assert_close(texts, want.text_embeds, **CLOSE)
    assert_close(images, want.image_embeds, **CLOSE)
    assert_close(model.logits(texts, images), want.logits_per_text, **CLOSE)
    assert_close(model.logits(texts, images).T, want.logits_per_image, **CLOSE)


@torch.no_grad()
def test_clip() -> None:
    """A text's vector is that of its end, its last real token: whatever follows it is padding."""
    transformers = pytest.importorskip("transformers")
    text = {**TEXT, "hidden_size": 16, "eos_token_id": END}
    config = transformers.CLIPConfig(text_config=text, vision_config=IMAGE, projection_dim=7)
    reference = redrawn(transformers.CLIPModel(config))
    model: Any = filled(clip(), saved(reference), RENAMES)
    ids = torch.randint(2, END, (3, 9), generator=torch.Generator().manual_seed(1))
    ids[0, 3:], ids[1, 8], ids[2, 5:] = END, END, torch.tensor([END, 1, 1, 1])
    lengths = (ids == END).long().argmax(1) + 1
    for size in ((12, 12), (9, 15)):
        pixels = drawn(3, 2, *size)
        want = reference(input_ids=ids, pixel_values=pixels, interpolate_pos_encoding=True, return_loss=True)
        agree(model, want, model(ids, lengths=lengths), pixels)
        assert_close(model.contrast(ids, pixels, lengths=lengths), want.loss, **CLOSE)
    stream = model.read(ids, lambda h, where: h, lengths=lengths)
    real = torch.arange(9) < lengths[:, None]
    assert_close(stream[real], want.text_model_output.last_hidden_state[real], **CLOSE)


@torch.no_grad()
def test_siglip() -> None:
    """Every text is filled up to one length, and its last token counts, whatever it is."""
    transformers = pytest.importorskip("transformers")
    text = {**TEXT, "hidden_size": 12, "eos_token_id": END}
    reference = redrawn(transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=IMAGE)))
    tensors = {}
    for name, tensor in saved(reference).items():
        path, kind = name.rsplit("_", 1)
        if path.endswith("in_proj"):  # three maps in one
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                tensors[f"image.head.attention.{letter}.{kind}"] = part
        else:
            tensors[name] = tensor
    model: Any = filled(siglip(), tensors, RENAMES)
    ids = torch.randint(2, 30, (3, 9), generator=torch.Generator().manual_seed(1))
    ids[0, 4:] = 1
    for size in ((12, 12), (9, 15)):
        pixels = drawn(3, 2, *size)
        want = reference(input_ids=ids, pixel_values=pixels, interpolate_pos_encoding=True, return_loss=True)
        agree(model, want, model(ids), pixels)
        assert_close(model.contrast(ids, pixels), want.loss, **CLOSE)
        stream = model.image.read(pixels, lambda h, where: h)
        assert_close(stream, want.vision_model_output.last_hidden_state, **CLOSE)


@torch.no_grad()
def test_both_losses_by_their_definitions() -> None:
    ids, pixels = torch.arange(12).view(4, 3), drawn(4, 2, 12, 12)
    for spec in (clip(), siglip()):
        model: Any = from_dict(AnyModel, spec).build(dtype=torch.float64)
        if model.bias is None:
            assert abs(model.scale.exp().item() - 1 / 0.07) < 1e-6
        redrawn(model)
        logits, n = model.logits(model(ids), model.image(pixels)), 4
        if model.bias is None:
            each = [logits[i].log_softmax(0)[i] + logits[:, i].log_softmax(0)[i] for i in range(n)]
            want = -sum(each) / (2 * n)
        else:
            signs = [[1.0 if i == j else -1.0 for j in range(n)] for i in range(n)]
            want = -F.logsigmoid(torch.tensor(signs).double() * logits).sum() / n
        assert_close(model.contrast(ids, pixels), torch.as_tensor(want), **CLOSE)


def test_what_two_towers_refuse() -> None:
    for path, head in (("head", "tied"), (r"image\.head", None)):
        spec = clip()
        if head:
            spec["head"] = head
        else:
            spec["image"]["head"] = None
        with pytest.raises(ValueError, match=rf"^{path}: .* a vector of a whole row, as `sentence` and `probe`"):
            from_dict(AnyModel, spec).build()
    model: Any = from_dict(AnyModel, clip()).build()
    with pytest.raises(ValueError, match=r"as many texts as images; came 2 texts and 3 images"):
        model.contrast(torch.zeros(2, 4, dtype=torch.long), torch.zeros(3, 2, 12, 12))
    with pytest.raises(ValueError, match=r"head: this head reads the whole text at once"):
        model.init_state(1)
    with pytest.raises(ValueError, match=r"image\.embedding: images must be numbers"):
        model.image(torch.zeros(3, 3, 12, 12))
