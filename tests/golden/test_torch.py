"""Our models against torch.nn's Transformer, TransformerEncoder and TransformerDecoder, where they coincide."""

from collections.abc import Iterator

import pytest
import torch
from oracles import torch_names
from torch import Tensor, nn

from anyformer.core.context import Source, Where
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict

WIDTH, HEADS, HIDDEN, LAYERS, VOCABULARY = 30, 5, 37, 3, 19
SAME = {"rtol": 0.0, "atol": 1e-10}
IDS, SOURCE_IDS = torch.arange(2 * 9).view(2, 9) * 7 % VOCABULARY, torch.arange(2 * 6).view(2, 6) * 5 % VOCABULARY
LENGTHS, SOURCE_LENGTHS = torch.tensor([9, 5]), torch.tensor([4, 6])

variants = pytest.mark.parametrize(
    ("norm_first", "activation", "bias"),
    [(False, "relu", True), (True, "relu", False), (True, "gelu", True), (False, "gelu", False)],
)


@pytest.fixture(autouse=True)
def no_history() -> Iterator[None]:
    with torch.no_grad():
        yield


def redrawn(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(4)
    for weight in module.parameters():
        weight.normal_(std=0.5, generator=generator)
    return module.eval()


def stack(norm_first: bool, activation: str, bias: bool, pattern: str, cross: bool = False) -> dict:
    norm = {"kind": "layer", "bias": bias}
    heads = {"heads": HEADS, "bias": bias}
    block = {
        "kind": "block",
        "mixer": {"kind": "softmax", "pattern": pattern, **heads},
        "cross": {"kind": "cross", **heads} if cross else None,
        "ff": {"kind": "mlp", "hidden": HIDDEN, "activation": activation, "bias": bias},
        "residual": {"kind": "pre" if norm_first else "post", "norm": norm},
    }
    return {"kind": "stack", "blocks": [block] * LAYERS, "norm": norm}  # torch ends with a norm, post-norm or not


def build(kind: str, **parts: object) -> Model:
    tree = {"kind": kind, "width": WIDTH, "vocabulary": VOCABULARY, **parts}
    model = from_dict(AnyModel, tree).build(dtype=torch.float64).eval()
    redrawn(model)
    return model


def fill(module: nn.Module, named: dict[str, Tensor]) -> None:
    module.load_state_dict(named)  # strict: a name that either side lacks is an error


def options(norm_first: bool, activation: str, bias: bool) -> dict:
    shared = {"activation": activation, "norm_first": norm_first, "bias": bias}
    return {"dropout": 0.0, "batch_first": True, "dtype": torch.float64, **shared}


def torch_encoder(norm_first: bool, activation: str, bias: bool) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, **options(norm_first, activation, bias))
    norm = nn.LayerNorm(WIDTH, bias=bias, dtype=torch.float64)
    return redrawn(nn.TransformerEncoder(layer, LAYERS, norm, enable_nested_tensor=False))


def torch_decoder(norm_first: bool, activation: str, bias: bool) -> nn.TransformerDecoder:
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN, **options(norm_first, activation, bias))
    return redrawn(nn.TransformerDecoder(layer, LAYERS, nn.LayerNorm(WIDTH, bias=bias, dtype=torch.float64)))


def padding(lengths: Tensor, length: int) -> Tensor:
    """torch's key_padding_mask: True where there is no token."""
    return torch.arange(length) >= lengths[:, None]


def later(length: int) -> Tensor:
    """torch's attention mask: True where a pair is left out."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def vectors(model: Model, ids: Tensor) -> Tensor:
    return model.state_dict()["embedding.weight"][ids]


@variants
def test_encoder(norm_first: bool, activation: str, bias: bool) -> None:
    theirs = torch_encoder(norm_first, activation, bias)
    model = build("encoder", body=stack(norm_first, activation, bias, "full"))
    fill(model.get_submodule("body"), torch_names.stack(theirs.state_dict(), "", LAYERS))
    x = vectors(model, IDS)
    torch.testing.assert_close(model(IDS), theirs(x), **SAME)
    pad = padding(LENGTHS, 9)
    out, expected = model(IDS, lengths=LENGTHS), theirs(x, src_key_padding_mask=pad)
    torch.testing.assert_close(out[~pad], expected[~pad], **SAME)
    assert (out - model(IDS))[1, :5].abs().max() > 1e-4  # the mask does something


@variants
def test_decoder_only(norm_first: bool, activation: str, bias: bool) -> None:
    """torch has no decoder without a source: its encoder with a causal mask is one."""
    theirs = torch_encoder(norm_first, activation, bias)
    model = build("decoder", body=stack(norm_first, activation, bias, "causal"))
    fill(model.get_submodule("body"), torch_names.stack(theirs.state_dict(), "", LAYERS))
    table, pad = model.state_dict()["embedding.weight"], padding(LENGTHS, 9)
    expected = theirs(vectors(model, IDS), mask=later(9)) @ table.T
    torch.testing.assert_close(model(IDS), expected, **SAME)
    torch.testing.assert_close(model(IDS, lengths=LENGTHS)[~pad], expected[~pad], **SAME)


@variants
def test_decoder_with_a_source(norm_first: bool, activation: str, bias: bool) -> None:
    theirs = torch_decoder(norm_first, activation, bias)
    parts = (norm_first, activation, bias)
    model = build("encoder_decoder", encoder=stack(*parts, "full"), decoder=stack(*parts, "causal", cross=True))
    fill(model.get_submodule("decoder"), torch_names.stack(theirs.state_dict(), "", LAYERS, cross=True))
    memory = torch.randn(2, 6, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gone, pad = padding(SOURCE_LENGTHS, 6), padding(LENGTHS, 9)
    where = Where.start(2, 6)
    where = Where(where.time.masked_fill(gone, -1), where.coords, {})
    out = model(IDS, lengths=LENGTHS, sources={"source": Source(memory, where)})
    x = vectors(model, IDS)
    masks = {"tgt_mask": later(9), "tgt_key_padding_mask": pad, "memory_key_padding_mask": gone}
    expected = theirs(x, memory, **masks) @ model.state_dict()["embedding.weight"].T
    torch.testing.assert_close(out[~pad], expected[~pad], **SAME)


@variants
def test_transformer(norm_first: bool, activation: str, bias: bool) -> None:
    parts = (norm_first, activation, bias)
    pair = {"custom_encoder": torch_encoder(*parts), "custom_decoder": torch_decoder(*parts)}
    theirs = nn.Transformer(WIDTH, HEADS, batch_first=True, **pair)
    redrawn(theirs)
    model = build("encoder_decoder", encoder=stack(*parts, "full"), decoder=stack(*parts, "causal", cross=True))
    named = theirs.state_dict()
    fill(model.get_submodule("encoder"), torch_names.stack(named, "encoder.", LAYERS))
    fill(model.get_submodule("decoder"), torch_names.stack(named, "decoder.", LAYERS, cross=True))
    pads = padding(SOURCE_LENGTHS, 6), padding(LENGTHS, 9)
    masks = {"src_key_padding_mask": pads[0], "tgt_key_padding_mask": pads[1], "memory_key_padding_mask": pads[0]}
    stream = theirs(vectors(model, SOURCE_IDS), vectors(model, IDS), tgt_mask=later(9), **masks)
    expected = stream @ model.state_dict()["embedding.weight"].T
    out = model(IDS, lengths=LENGTHS, sources={"source": model.encode(SOURCE_IDS, SOURCE_LENGTHS)})
    torch.testing.assert_close(out[~pads[1]], expected[~pads[1]], **SAME)
