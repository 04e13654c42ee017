"""Images: patches by the definition, and vision transformers as `transformers` computes them."""

import re
from typing import Any

import pytest
import torch
from oracles.published import exact, redrawn
from oracles.saved import CLOSE, drawn, filled, saved
from torch import Tensor
from torch.testing import assert_close

from anyformer.core.context import Where
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.core.tape import Tape

EPS, LABELS = 0.03, ["cat", "dog", "hen"]
SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "num_channels": 2, "hidden_act": "relu"}
CONFIG = {**SIZES, "patch_size": 3, "image_size": 12, "layer_norm_eps": EPS}
PATCHES = {"kind": "patches", "size": 3, "image": 12, "channels": 2}
NORM = {"kind": "layer", "eps": EPS}
FF = {"kind": "mlp", "hidden": 20, "activation": "relu"}
IMAGES = [(12, 12), (15, 9), (24, 6), (14, 13), (6, 21)]  # as many patches in another shape; a border; fewer; more
RENAMES = [
    ("embeddings.cls_token", "embedding.class_token"),
    ("embeddings.distillation_token", "embedding.distillation_token"),
    ("embeddings.mask_token", "embedding.mask_token"),
    ("embeddings.register_tokens", "embedding.registers"),
    ("embeddings.position_embeddings", "embedding.position"),
    ("embeddings.patch_embeddings.projection", "embedding.proj"),
    ("encoder.layer.", "body.blocks."),
    ("attention.attention.query", "mixer.q"),
    ("attention.attention.key", "mixer.k"),
    ("attention.attention.value", "mixer.v"),
    ("attention.output.dense", "mixer.o"),
    ("intermediate.dense", "ff.up"),
    ("output.dense", "ff.down"),
    ("layernorm_before", "residual.norm.mixer"),
    ("layernorm_after", "residual.norm.ff"),
    ("layernorm", "body.norm"),
    ("pooler.dense", "head.pooler.dense"),
    ("cls_classifier", "head.out"),
    ("distillation_classifier", "head.taught"),
    ("classifier", "head.out"),
    # DINOv2
    ("norm1", "residual.norm.mixer"),
    ("norm2", "residual.norm.ff"),
    ("layer_scale1.lambda1", "residual.scale.mixer"),
    ("layer_scale2.lambda1", "residual.scale.ff"),
    ("mlp.fc1", "ff.up"),
    ("mlp.fc2", "ff.down"),
    ("mlp.weights_out", "ff.down"),
]


def vit(
    head: Any = None, bias: bool = True, residual: str = "pre", ff: dict[str, Any] = FF, **patches: Any
) -> dict[str, Any]:
    mixer = {"kind": "softmax", "heads": 3, "pattern": "full", "bias": bias, "out_bias": True}
    block = {"kind": "block", "mixer": mixer, "ff": ff, "residual": {"kind": residual, "norm": NORM}}
    body = {"kind": "stack", "blocks": [block, block], "norm": NORM}
    return {"kind": "encoder", "width": 12, "embedding": {**PATCHES, **patches}, "body": body, "head": head}


def stream(model: Model, pixels: Tensor) -> Tensor:
    return model.read(pixels, lambda h, where: h)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_vit(bias: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(**CONFIG, intermediate_size=20, qkv_bias=bias)
    reference = redrawn(transformers.ViTModel(config))
    head = {"kind": "sentence", "pool": "first", "hidden": True, "unit": False}
    model = filled(vit(head, bias), saved(reference), RENAMES)
    for size in IMAGES:
        pixels = drawn(3, 2, *size)
        want = reference(pixels, interpolate_pos_encoding=True)
        assert_close(stream(model, pixels), want.last_hidden_state, **CLOSE)
        assert_close(model(pixels), want.pooler_output, **CLOSE)


@torch.no_grad()
def test_vit_classifies() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(**CONFIG, intermediate_size=20, num_labels=3)
    reference = redrawn(transformers.ViTForImageClassification(config))
    tensors = {name.removeprefix("vit."): tensor for name, tensor in saved(reference).items()}
    model = filled(vit({"kind": "classify", "labels": LABELS}), tensors, RENAMES)
    pixels = drawn(3, 2, 12, 12)
    assert_close(model(pixels), reference(pixels).logits, **CLOSE)


@torch.no_grad()
def test_deit() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.DeiTConfig(**CONFIG, intermediate_size=20, num_labels=3)
    reference = redrawn(transformers.DeiTForImageClassificationWithTeacher(config))
    tensors = {name.removeprefix("deit."): tensor for name, tensor in saved(reference).items()}
    model: Any = filled(vit({"kind": "distilled", "labels": LABELS}, distillation_token=True), tensors, RENAMES)
    for size in IMAGES:
        pixels = drawn(3, 2, *size)
        want = reference(pixels, interpolate_pos_encoding=True)
        assert_close(model(pixels), want.logits, **CLOSE)
        out, taught = model.read(pixels, model.head.both)
        assert_close(out, want.cls_logits, **CLOSE)
        assert_close(taught, want.distillation_logits, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "registers", "swiglu"])
def test_dinov2(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {**CONFIG, "mlp_ratio": 2, "use_swiglu_ffn": kind == "swiglu"}
    if kind == "registers":
        config = transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=3)
        reference = redrawn(transformers.Dinov2WithRegistersModel(config))
    else:
        reference = redrawn(transformers.Dinov2Model(transformers.Dinov2Config(**sizes)))
    tensors = {}
    for name, tensor in saved(reference).items():
        if "weights_in" in name:  # two maps in one
            gate, up = tensor.chunk(2)
            tensors |= {name.replace("mlp.weights_in", "ff.gate"): gate, name.replace("mlp.weights_in", "ff.up"): up}
        else:
            tensors[name] = tensor
    gated = {"kind": "gated", "hidden": 16, "bias": True}  # 2/3 of 24
    ff = gated if kind == "swiglu" else {"kind": "mlp", "hidden": 24, "activation": "relu"}
    declared = vit(residual="layer_scale", ff=ff, mask_token=True, registers=3 if kind == "registers" else 0)
    model = filled(declared, tensors, RENAMES)
    for size in IMAGES[:1] if kind == "registers" else IMAGES:  # with registers, positions are smoothed as well
        pixels = drawn(3, 2, *size)
        with exact():  # positions are resized in float32
            want = reference(pixels).last_hidden_state
        assert_close(model(pixels), want, **CLOSE)


# Patches by the definition


def built(rank: int = 1, **fields: Any) -> Any:
    embedding = {**PATCHES, **fields}
    body = {"kind": "stack", "blocks": [{"kind": "block", "mixer": {"kind": "softmax", "heads": 1, "pattern": "full"}}]}
    spec = {"kind": "encoder", "width": 4, "rank": rank, "embedding": embedding, "body": body}
    return redrawn(from_dict(AnyModel, spec).build())


@torch.no_grad()
def test_a_patch_is_a_linear_map_of_its_pixels() -> None:
    model, pixels = built(image=[6, 9]), drawn(2, 2, 7, 11)
    patches: Any = model.embedding
    vectors, weight = patches(pixels), patches.proj.weight.view(4, 2, 3, 3)
    assert vectors.shape == (2, 7, 4)
    for n, (row, column) in enumerate((row, column) for row in range(2) for column in range(3)):
        part = pixels[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        want = torch.einsum("bkij,ckij->bc", part, weight) + patches.proj.bias + patches.position[n + 1]
        assert_close(vectors[:, n + 1], want, **CLOSE)
    assert_close(vectors[:, 0], (patches.class_token[0] + patches.position[0]).expand(2, -1), **CLOSE)


@torch.no_grad()
def test_where_patches_are() -> None:
    flat, square = (built(rank, image=[6, 9], registers=2) for rank in (1, 2))
    pixels = drawn(2, 2, 6, 9)

    def where(model: Model) -> Where:
        return model.read(pixels, lambda h, where: where)

    assert where(flat).coords[0, :, 0].tolist() == list(range(9))
    cells = [[-1, -1]] * 3 + [[row, column] for row in range(2) for column in range(3)]
    assert where(square).coords.tolist() == [cells, cells]
    assert where(square).time.tolist() == [list(range(9))] * 2
    elsewhere = torch.zeros(2, 9, 2, dtype=torch.long)
    assert torch.equal(square.read(pixels, lambda h, where: where.coords, coords=elsewhere), elsewhere)


def test_the_tape_and_gradients_of_another_size() -> None:
    model, pixels = built(), drawn(1, 2, 9, 6)
    tape = Tape(record=["embedding"])
    model(pixels, tape=tape).square().sum().backward()
    assert_close(tape["embedding"], model.embedding(pixels), **CLOSE)
    gradient = model.get_parameter("embedding.position").grad
    assert gradient is not None and bool((gradient.abs().sum(1) > 0).all())


# What is refused


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (torch.zeros(1, 3, 12, 12), r"embedding: images must be numbers \(B, 2, height, width\).*\(1, 3, 12, 12\)"),
        (torch.zeros(2, 12, 12), r"came torch\.float32 \(2, 12, 12\)"),
        (torch.zeros(1, 2, 12, 12, dtype=torch.uint8), r"came torch\.uint8"),
        (torch.zeros(0, 2, 12, 12), r"B at least 1"),
        (torch.zeros(1, 2, 12, 2), r"embedding: an image of 12 x 2 has no patch of 3 x 3"),
    ],
)
def test_what_is_no_image(pixels: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        built()(pixels)


def test_images_come_whole() -> None:
    model, pixels = built(), drawn(1, 2, 12, 12)
    for given in ({"lengths": torch.tensor([3])}, {"real": torch.ones(1, 17, dtype=torch.bool)}):
        with pytest.raises(ValueError, match=r"embedding: every row makes as many vectors.*leave out lengths and real"):
            model(pixels, **given)
    with pytest.raises(ValueError, match=r"embedding: what enters here comes whole"):
        model.init_state(1)
    with pytest.raises(ValueError, match=re.escape("2 coordinates a token: give coords (1, 17, 2); came (1, 17, 1)")):
        built(2)(pixels, coords=torch.zeros(1, 17, 1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rank": 3}, r"embedding: patches have one or two coordinates; the model declares rank 3"),
        ({"labels": ["document"]}, r"embedding: what enters here is one thing a row; take 'document' out"),
        ({"head": "tied"}, r"head\.table: 'embedding' takes no token ids.*use another head"),
        ({"embedding": {"kind": "factorised", "size": 3, "inner": PATCHES}}, r"embedding\.inner: a vector per token"),
        ({"embedding": {**PATCHES, "image": 2}}, r"embedding: an image of 2 x 2 has no patch of 3 x 3"),
    ],
)
def test_declarations_that_make_no_sense(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_dict(AnyModel, {**vit(), **change}).build()
