"""The published models among the presets: their weights are counted by hand, their numbers are those of torch.nn."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from oracles import torch_names
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.cli.main import main
from anyformer.core.build import site_of
from anyformer.core.model import Model
from anyformer.core.overrides import expand
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.recipes.shipped import presets, read_file

WIDTH, VOCABULARY, LAYERS = 48, 19, 2
SAME = {"rtol": 0.0, "atol": 1e-10}
IDS, SOURCE_IDS = torch.arange(2 * 9).view(2, 9) * 7 % VOCABULARY, torch.arange(2 * 6).view(2, 6) * 5 % VOCABULARY
LENGTHS, SOURCE_LENGTHS = torch.tensor([9, 5]), torch.tensor([4, 6])
GONE, SOURCE_GONE = torch.arange(9) >= LENGTHS[:, None], torch.arange(6) >= SOURCE_LENGTHS[:, None]
Activation = Callable[[Tensor], Tensor]
LATER = torch.ones(9, 9, dtype=torch.bool).triu(1)


def declared(name: str) -> Any:
    return from_dict(AnyModel, expand(read_file(presets()[name])))


def counted(name: str, vocabulary: int | None = None) -> dict[str, int]:
    """The parameters of each part, and of `all`; built without memory."""
    spec = declared(name)
    spec = replace(spec, vocabulary=vocabulary or spec.vocabulary)
    with torch.device("meta"):
        model = spec.make(site_of(spec))
    parts = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    return {**parts, "all": sum(p.numel() for p in model.parameters())}


def linear(out: int, into: int) -> int:
    return out * into + out


def bert(layers: int, width: int, vocabulary: int = 30522) -> int:
    """Devlin et al.: word, position and segment tables, a norm; per layer 4 + 2 maps and 2 norms; the pooler."""
    norm = 2 * width
    layer = 4 * linear(width, width) + linear(4 * width, width) + linear(width, 4 * width) + 2 * norm
    return (vocabulary + 512 + 2) * width + norm + layers * layer + linear(width, width)


def transformer(width: int, hidden: int, layers: int = 6, vocabulary: int = 37000, ends: int = 0) -> int:
    """Vaswani et al.: one table; 4 maps and 2 norms an encoder layer, 8 and 3 a decoder layer. ends: last norms."""
    ff, norm = linear(hidden, width) + linear(width, hidden), 2 * width
    layer = 12 * width**2 + 2 * ff + 5 * norm
    return vocabulary * width + layers * layer + ends * norm


@pytest.mark.parametrize(
    ("name", "layers", "width", "published"), [("bert-base", 12, 768, 109_482_240), ("bert-tiny", 2, 128, 4_385_920)]
)
def test_berts_have_their_published_size(name: str, layers: int, width: int, published: int) -> None:
    found = counted(name, 30522)
    pooler = linear(width, width)
    assert found["all"] - found["head"] + pooler == bert(layers, width) == published
    transform, pair = linear(width, width) + 2 * width + 30522, linear(2, width)
    assert found["head"] == transform + pooler + pair


def test_gpt2_has_its_published_size() -> None:
    layer = 4 * linear(768, 768) + linear(3072, 768) + linear(768, 3072) + 4 * 768
    assert counted("gpt2")["all"] == (50257 + 1024) * 768 + 12 * layer + 2 * 768 == 124_439_808


def test_transformers_have_their_published_sizes() -> None:
    base, big = counted("transformer-base")["all"], counted("transformer-big")["all"]
    assert base == transformer(512, 2048) and base == pytest.approx(65e6, rel=0.04)
    assert big == transformer(1024, 4096) and big == pytest.approx(213e6, rel=0.01)
    assert counted("transformer-tiny", 8000)["all"] == transformer(256, 1024, 3, 8000, ends=2)


def test_hyper_parameters_that_no_weight_shows() -> None:
    base, big, bert_base = declared("transformer-base"), declared("transformer-big"), declared("bert-base")
    for model, dropout in ((base, 0.1), (big, 0.3)):
        assert model.embedding.scale == pytest.approx(model.width**0.5, rel=1e-12)
        residuals = {block.residual for block in (*model.encoder.blocks, *model.decoder.blocks)}
        assert {model.dropout, *(residual.dropout for residual in residuals)} == {dropout}
    assert bert_base.dropout == 0.1 and bert_base.labels == ("segment",)
    for block in bert_base.body.blocks:
        assert block.mixer.dropout == block.residual.dropout == 0.1
        assert block.residual.norm.eps == bert_base.norm.eps == bert_base.head.tokens.norm.eps == 1e-12


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "presets"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(presets())
    for line in lines:
        assert any(year in line for year in ("20", "small")), "what it is, and from where"
    assert main(["list"]) == 0
    assert "bert-base" in capsys.readouterr().out


# Numbers


@pytest.fixture(autouse=True)
def no_history() -> Iterator[None]:
    with torch.no_grad():
        yield


def redrawn(module: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(4)
    for weight in module.parameters():
        weight.normal_(std=0.5, generator=generator)
    return module.eval()


def small(name: str, *stacks: str) -> Model:
    """The preset with 2 layers of width 48 and its weights redrawn; all else is as it is declared."""
    spec = declared(name)
    bodies = {stack: replace(part := getattr(spec, stack), blocks=part.blocks[:LAYERS]) for stack in stacks}
    if "encoder" in stacks:
        bodies["embedding"] = replace(spec.embedding, scale=spec.embedding.scale * (WIDTH / spec.width) ** 0.5)
    spec = replace(spec, width=WIDTH, vocabulary=VOCABULARY, **bodies)
    return redrawn(spec.build(dtype=torch.float64))


def layers(kind: str, heads: int, activation: Activation, pre: bool, eps: float = 1e-5) -> Any:
    """Torch's "Encoder" or "Decoder"; a last norm stands where the layers begin with theirs, as in the papers."""
    shared = {"dropout": 0.0, "batch_first": True, "dtype": torch.float64, "layer_norm_eps": eps, "norm_first": pre}
    layer = getattr(nn, f"Transformer{kind}Layer")(WIDTH, heads, 4 * WIDTH, activation=activation, **shared)
    flags = {"enable_nested_tensor": False} if kind == "Encoder" else {}
    norm = nn.LayerNorm(WIDTH, dtype=torch.float64) if pre else None
    return redrawn(getattr(nn, f"Transformer{kind}")(layer, LAYERS, norm=norm, **flags))


def copied(module: nn.Module, theirs: nn.Module, cross: bool = False) -> None:
    """Torch's weights in our stack, every one of ours."""
    named = torch_names.stack(theirs.state_dict(), "", LAYERS, cross)
    module.load_state_dict({name: named[name] for name in module.state_dict()})


@pytest.mark.parametrize(("name", "heads"), [("bert-base", 12), ("bert-tiny", 2)])
def test_bert(name: str, heads: int) -> None:
    """The sum of three tables, normalised; post-norm layers with the exact GELU; both heads."""
    model, segment = small(name, "body"), (torch.arange(9) > 4).long().expand(2, 9)
    theirs = layers("Encoder", heads, F.gelu, False, 1e-12)
    copied(model.get_submodule("body"), theirs)
    p = model.state_dict()
    x = p["embedding.weight"][IDS] + p["position.schemes.0.weight"][:9] + p["position.schemes.1.weight"][segment]
    x = F.layer_norm(x, (WIDTH,), p["norm.weight"], p["norm.bias"], 1e-12)
    h = theirs(x, src_key_padding_mask=GONE)
    tokens = F.gelu(F.linear(h, p["head.tokens.dense.weight"], p["head.tokens.dense.bias"]))
    tokens = F.layer_norm(tokens, (WIDTH,), p["head.tokens.norm.weight"], p["head.tokens.norm.bias"], 1e-12)
    tokens = F.linear(tokens, p["embedding.weight"], p["head.tokens.decoder.bias"])
    given: dict = {"lengths": LENGTHS, "labels": {"segment": segment}}
    assert_close(model(IDS, **given)[~GONE], tokens[~GONE], **SAME)
    pooled = F.linear(h[:, 0], p["head.pair.pooler.dense.weight"], p["head.pair.pooler.dense.bias"]).tanh()
    pairs = F.linear(pooled, p["head.pair.out.weight"], p["head.pair.out.bias"])
    assert_close(model.read(IDS, model.get_submodule("head.pair"), **given), pairs, **SAME)


def test_gpt2() -> None:
    """Learned positions, pre-norm layers with the tanh GELU, a last norm, the embedding read backwards."""
    model = small("gpt2", "body")
    theirs = layers("Encoder", 12, partial(F.gelu, approximate="tanh"), True)
    copied(model.get_submodule("body"), theirs)
    p = model.state_dict()
    h = theirs(p["embedding.weight"][IDS] + p["position.weight"][:9], mask=LATER)
    assert_close(model(IDS), h @ p["embedding.weight"].T, **SAME)


@pytest.mark.parametrize(
    ("name", "heads", "pre"),
    [("transformer-base", 8, False), ("transformer-big", 16, False), ("transformer-tiny", 4, True)],
)
def test_transformers(name: str, heads: int, pre: bool) -> None:
    """Scaled words and waves on both sides; attention without biases; the table read backwards."""
    model = small(name, "encoder", "decoder")
    encoder, decoder = (layers(kind, heads, F.relu, pre) for kind in ("Encoder", "Decoder"))
    theirs = nn.Transformer(WIDTH, heads, custom_encoder=encoder, custom_decoder=decoder, batch_first=True)
    for weight_name, weight in redrawn(theirs).named_parameters():
        if weight_name.endswith(("in_proj_bias", "out_proj.bias")):
            weight.zero_()
    copied(model.get_submodule("encoder"), encoder)
    copied(model.get_submodule("decoder"), decoder, cross=True)
    table, scale = model.state_dict()["embedding.weight"], WIDTH**0.5

    def entered(ids: Tensor) -> Tensor:
        place, channel = torch.arange(ids.shape[1])[:, None], torch.arange(WIDTH)
        angle = place / 10_000 ** ((channel // 2 * 2).double() / WIDTH)
        return table[ids] * scale + torch.where(channel % 2 == 0, angle.sin(), angle.cos())

    masks = {"src_key_padding_mask": SOURCE_GONE, "tgt_key_padding_mask": GONE, "memory_key_padding_mask": SOURCE_GONE}
    h = theirs(entered(SOURCE_IDS), entered(IDS), tgt_mask=LATER, **masks)
    out = model(IDS, lengths=LENGTHS, sources={"source": model.encode(SOURCE_IDS, SOURCE_LENGTHS)})
    assert_close(out[~GONE], (h @ table.T)[~GONE], **SAME)
