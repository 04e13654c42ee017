"""The small parts of published models against transformers' own: norms, activations, residuals, embeddings, heads."""

from typing import Any

import pytest
import torch
from oracles.published import config, exact, modeling, redrawn
from torch import Tensor, nn
from torch.testing import assert_close

from anyformer.core.context import Context, Where
from anyformer.core.layer import Part
from anyformer.core.roles import Embedding, FeedForward, Head, Norm, Residual
from anyformer.core.spec import Site, from_dict
from anyformer.feedforward.activations import FUNCTIONS, Activation

C, E, V, T = 10, 6, 13, 9
SAME = {"rtol": 0.0, "atol": 1e-12}
WHERE = Where.start(2, T)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.4


def part(role: Any, given: Any, weights: dict[str, Tensor] | None = None, **site: Any) -> Any:
    """One part with these weights, or large ones, in float64."""
    built = from_dict(role, given).build(Site("part", C, vocabulary=V, **site)).double()
    redrawn(built)
    if weights is not None:
        built.load_state_dict(weights)
    return built.eval()


class Both(Part):
    """An embedding, and a head that may read it backwards."""

    embedding: Any
    head: Any

    def __init__(self, embedding: Any, head: Any) -> None:
        at = Site("", C, vocabulary=V)
        super().__init__(at)
        self.hold(at, "embedding", from_dict(Embedding, embedding))
        self.hold(at, "head", from_dict(Head, head))
        redrawn(self)


def head_of(embedding: Any, head: Any, weights: dict[str, Tensor]) -> Any:
    both = Both(embedding, head)
    both.load_state_dict(weights)
    return both.eval().head


def named(module: nn.Module, **names: str) -> dict[str, Tensor]:
    """The tensors of a module of theirs under our names; `dense="head.dense"` carries weight and bias."""
    state = module.state_dict()
    pairs = ((f"{theirs}.{leaf}", f"{ours}.{leaf}") for theirs, ours in names.items() for leaf in ("weight", "bias"))
    return {ours: state[theirs] for theirs, ours in pairs if theirs in state}


@torch.no_grad()
def answer(theirs: Any, *given: Any) -> Tensor:
    with exact():
        out = theirs(*given)
    return out[0] if isinstance(out, tuple) else out


# Norms


NORMS = {
    "gemma": ("GemmaRMSNorm", "rms_offset"),
    "gemma2": ("Gemma2RMSNorm", "rms_offset"),
    "gemma3": ("Gemma3RMSNorm", "rms_offset"),
    "llama": ("LlamaRMSNorm", "rms"),
    "qwen3": ("Qwen3RMSNorm", "rms"),
    "granite": ("GraniteRMSNorm", "rms"),
    "olmo2": ("Olmo2RMSNorm", "rms"),
    "gpt_oss": ("GptOssRMSNorm", "rms"),
    "t5": ("T5LayerNorm", "rms"),
}


@pytest.mark.parametrize("model", NORMS)
def test_norms(model: str) -> None:
    theirs, kind = NORMS[model]
    norm, x = redrawn(getattr(modeling(model), theirs)(C, eps=0.3)), draw(2, T, C)
    assert_close(part(Norm, {"kind": kind, "eps": 0.3}, norm.state_dict())(x), answer(norm, x), **SAME)


@pytest.mark.parametrize("model", ["gemma", "gemma2", "gemma3", "llama", "qwen3", "granite", "t5"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_norms_round_where_the_published_ones_do(model: str, dtype: torch.dtype) -> None:
    """Bit for bit: Llama rounds to half precision before the gain, Gemma after it."""
    theirs, kind = NORMS[model]
    norm = redrawn(getattr(modeling(model), theirs)(C, eps=1e-5)).to(dtype)
    ours, x = part(Norm, {"kind": kind, "eps": 1e-5}, norm.state_dict()).to(dtype), draw(64, C).to(dtype)
    if dtype == torch.float32:
        assert_close(ours(x), norm(x))
    else:
        assert torch.equal(ours(x), norm(x))


def test_norms_begin_as_the_identity_of_what_is_normal() -> None:
    x = draw(4, C)
    built = from_dict(Norm, "rms_offset").build(Site("norm", C)).double()
    with torch.no_grad():
        built.fills["weight"](built.weight, torch.Generator())
    assert_close(built(x).square().mean(-1), torch.ones(4, dtype=x.dtype), rtol=0.0, atol=1e-6)


# Activations, and the feed-forward with bounds


THEIRS = {
    "relu": "relu",
    "relu2": "relu2",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "identity",
}


@pytest.mark.parametrize("name", THEIRS)
def test_activations(name: str) -> None:
    pytest.importorskip("transformers")
    from transformers.activations import ACT2FN

    ours: Activation = THEIRS[name]  # pyright: ignore[reportAssignmentType]
    x = torch.linspace(-9, 9, 401, dtype=torch.float64)
    assert_close(FUNCTIONS[ours](x), ACT2FN[name](x), rtol=0.0, atol=1e-10)  # gelu_fast: ten digits of sqrt(2/pi)


def test_the_clamped_unit_by_hand() -> None:
    """Whatever goes in, what is between stays within (limit + 1) limit."""
    layer, x = part(FeedForward, {"kind": "clamped", "hidden": 7, "limit": 1.5, "slope": 2.0}), 5 * draw(2, T, C)
    gate, up = layer.gate(x), layer.up(x)
    want = torch.zeros(2, T, 7, dtype=x.dtype)
    for at in torch.cartesian_prod(torch.arange(2), torch.arange(T), torch.arange(7)).tolist():
        g, u = min(gate[tuple(at)].item(), 1.5), max(-1.5, min(up[tuple(at)].item(), 1.5))
        want[tuple(at)] = (u + 1) * g / (1 + torch.tensor(-2.0 * g, dtype=x.dtype).exp())
    assert_close(layer(x, Context(WHERE))[0], layer.down(want), **SAME)
    assert want.abs().amax() <= 2.5 * 1.5


# Residuals


def joined(residual: Any, weights: dict[str, Tensor] | None, x: Tensor) -> Tensor:
    """Two parts that say 3 sin and x², joined one after the other."""
    built = part(Residual, residual, weights, joins=("mixer", "ff"))
    for name, says in (("mixer", lambda x: 3 * x.sin()), ("ff", torch.square)):
        x = built.leave(name, x, says(built.enter(name, x)))
    return x


@torch.no_grad()
def published(layer: Any, mixer: str, ff: str, x: Tensor) -> Tensor:
    """A layer of transformers whose attention says 3 sin and whose feed-forward x²."""

    class Attention(nn.Module):
        def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
            return 3 * hidden_states.sin(), None

    class Square(nn.Module):
        def forward(self, hidden_states: Tensor) -> Tensor:
            return hidden_states.square()

    setattr(layer, mixer, Attention())
    setattr(layer, ff, Square())
    return answer(layer, x)


SIZES = {"hidden_size": C, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 5, "head_dim": 4}


def test_gemma2_is_a_sandwich() -> None:
    given = config("Gemma2Config", rms_norm_eps=0.2, num_hidden_layers=1, **SIZES)
    layer, x = redrawn(modeling("gemma2").Gemma2DecoderLayer(given, 0)), draw(2, T, C)
    norm = {"kind": "rms_offset", "eps": 0.2}
    weights = {
        "norm.mixer.weight": layer.input_layernorm.weight,
        "after.mixer.weight": layer.post_attention_layernorm.weight,
        "norm.ff.weight": layer.pre_feedforward_layernorm.weight,
        "after.ff.weight": layer.post_feedforward_layernorm.weight,
    }
    ours = joined({"kind": "sandwich", "norm": norm, "after": norm}, weights, x)
    assert_close(ours, published(layer, "self_attn", "mlp", x), **SAME)


def test_olmo2_norms_what_parts_say() -> None:
    given = config("Olmo2Config", rms_norm_eps=0.2, num_hidden_layers=1, **SIZES)
    layer, x = redrawn(modeling("olmo2").Olmo2DecoderLayer(given, 0)), draw(2, T, C)
    weights = {
        "after.mixer.weight": layer.post_attention_layernorm.weight,
        "after.ff.weight": layer.post_feedforward_layernorm.weight,
    }
    ours = joined({"kind": "sandwich", "norm": "no_norm", "after": {"kind": "rms", "eps": 0.2}}, weights, x)
    assert_close(ours, published(layer, "self_attn", "mlp", x), **SAME)


def test_granite_multiplies_what_parts_say() -> None:
    given = config("GraniteConfig", residual_multiplier=0.22, rms_norm_eps=0.2, num_hidden_layers=1, **SIZES)
    layer, x = redrawn(modeling("granite").GraniteDecoderLayer(given, 0)), draw(2, T, C)
    weights = {
        "norm.mixer.weight": layer.input_layernorm.weight,
        "norm.ff.weight": layer.post_attention_layernorm.weight,
    }
    ours = joined({"kind": "pre", "scale": 0.22, "norm": {"kind": "rms", "eps": 0.2}}, weights, x)
    assert_close(ours, published(layer, "self_attn", "mlp", x), **SAME)


def test_dinov2_has_a_gain_for_every_channel() -> None:
    given = config("Dinov2Config", hidden_size=C, num_attention_heads=2, layer_norm_eps=0.2)
    layer, x = redrawn(modeling("dinov2").Dinov2Layer(given)), draw(2, T, C)
    weights = {"scale.mixer": layer.layer_scale1.lambda1, "scale.ff": layer.layer_scale2.lambda1}
    weights |= named(layer, norm1="norm.mixer", norm2="norm.ff")
    ours = joined({"kind": "layer_scale", "norm": {"kind": "layer", "eps": 0.2}}, weights, x)
    assert_close(ours, published(layer, "attention", "mlp", x), **SAME)


def test_layer_scale_begins_at_its_first_gain() -> None:
    built = from_dict(Residual, {"kind": "layer_scale", "first": 0.3}).build(Site("r", C, joins=("ff",)))
    with torch.no_grad():
        built.scale.fills["ff"](built.scale.ff, torch.Generator())
    assert_close(built.scale.ff, torch.full((C,), 0.3))


# Heads


def test_gemma2_caps_its_logits() -> None:
    h, table = draw(2, T, C), draw(V, C)
    head = head_of("tokens", {"kind": "capped", "cap": 3.0}, {"embedding.weight": table})
    logits = head(h, WHERE)
    assert_close(logits, torch.tanh((h @ table.T) / 3.0) * 3.0, **SAME)
    assert (h @ table.T).abs().amax() > 9


def test_granite_divides_its_logits() -> None:
    h, weight = draw(2, T, C), draw(V, C)
    head = part(Head, {"kind": "language", "scale": 1 / 8}, {"out.weight": weight})
    assert_close(head(h, WHERE), (h @ weight.T) / 8, **SAME)


def test_albert() -> None:
    """Narrow embeddings, and a head that goes back to their width."""
    given = config("AlbertConfig", hidden_size=C, embedding_size=E, vocab_size=V, layer_norm_eps=0.1)
    theirs, h = redrawn(modeling("albert").AlbertMLMHead(given)), draw(2, T, C)
    with torch.no_grad():
        theirs.decoder.bias.copy_(theirs.bias)  # one tensor in files
    weights = named(theirs, dense="head.dense", LayerNorm="head.norm")
    weights |= {"head.decoder.bias": theirs.bias, "embedding.inner.weight": theirs.decoder.weight}
    tied = {"kind": "tied", "table": {"ref": "embedding.inner"}, "bias": True}
    norm = {"kind": "layer", "eps": 0.1}
    head = {"kind": "masked", "activation": "gelu_tanh", "size": E, "norm": norm, "decoder": tied}
    ours = head_of({"kind": "factorised", "size": E}, head, {**weights, "embedding.up.weight": draw(C, E)})
    assert_close(ours(h, WHERE), answer(theirs, h), **SAME)


def test_electras_generator() -> None:
    given = config("ElectraConfig", hidden_size=C, embedding_size=E, layer_norm_eps=0.1)
    theirs, h, table = redrawn(modeling("electra").ElectraGeneratorPredictions(given)), draw(2, T, C), draw(V, E)
    weights = named(theirs, dense="head.dense", LayerNorm="head.norm")
    weights |= {"embedding.inner.weight": table, "embedding.up.weight": draw(C, E), "head.decoder.bias": draw(V)}
    tied = {"kind": "tied", "table": {"ref": "embedding.inner"}, "bias": True}
    head = {"kind": "masked", "size": E, "norm": {"kind": "layer", "eps": 0.1}, "decoder": tied}
    ours = head_of({"kind": "factorised", "size": E}, head, weights)
    norm = theirs.LayerNorm.eps
    with torch.no_grad():
        dense = nn.functional.gelu(theirs.dense(h))
        wide = nn.functional.layer_norm(dense, (E,), theirs.LayerNorm.weight, theirs.LayerNorm.bias, norm)
        assert_close(ours(h, WHERE), wide @ table.T + draw(V), **SAME)


def test_opt_350m_projects_in_and_out() -> None:
    sizes = {"hidden_size": C, "word_embed_proj_dim": E, "vocab_size": V, "num_hidden_layers": 0, "ffn_dim": 4}
    more = {
        "num_attention_heads": 2,
        "_remove_final_layer_norm": True,
        "max_position_embeddings": 20,
        "pad_token_id": 1,
    }
    theirs = redrawn(modeling("opt").OPTForCausalLM(config("OPTConfig", **sizes, **more)))
    theirs.tie_weights()
    decoder, ids = theirs.model.decoder, torch.arange(2 * T).view(2, T) % V
    with torch.no_grad():
        positions = decoder.embed_positions.weight[2 : T + 2]
        logits = theirs(input_ids=ids).logits
    tied = {"kind": "tied", "table": {"ref": "embedding.inner"}}
    head = {"kind": "masked", "activation": "identity", "norm": "no_norm", "size": E, "bias": False, "decoder": tied}
    both = Both({"kind": "factorised", "size": E}, head)
    both.load_state_dict(
        {
            "embedding.inner.weight": decoder.embed_tokens.weight,
            "embedding.up.weight": decoder.project_in.weight,
            "head.dense.weight": decoder.project_out.weight,
        }
    )
    assert_close(both.head(both.embedding(ids) + positions, WHERE), logits, **SAME)


def test_a_table_of_another_width_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"head\.decoder\.table: its vectors have 10 channels, what is read here has 6"
    ):
        Both({"kind": "factorised", "size": E}, {"kind": "masked", "size": E, "decoder": "tied"}).double()


def test_roberta_and_modernbert_are_masked_heads() -> None:
    given = config("RobertaConfig", hidden_size=C, vocab_size=V, layer_norm_eps=0.1)
    theirs, h = redrawn(modeling("roberta").RobertaLMHead(given)), draw(2, T, C)
    weights = named(theirs, dense="head.dense", layer_norm="head.norm")
    weights |= {"embedding.weight": theirs.decoder.weight, "head.decoder.bias": theirs.decoder.bias}
    ours = head_of("tokens", {"kind": "masked", "norm": {"kind": "layer", "eps": 0.1}}, weights)
    assert_close(ours(h, WHERE), answer(theirs, h), **SAME)

    given = config("ModernBertConfig", hidden_size=C, vocab_size=V, norm_eps=0.1)
    theirs = redrawn(modeling("modernbert").ModernBertPredictionHead(given))
    weights = named(theirs, dense="head.dense", norm="head.norm") | {"embedding.weight": draw(V, C)}
    norm = {"kind": "layer", "eps": 0.1, "bias": False}
    ours = head_of("tokens", {"kind": "masked", "bias": False, "norm": norm, "decoder": "tied"}, weights)
    assert_close(ours(h, WHERE), answer(theirs, h) @ draw(V, C).T, **SAME)


CLASSIFIERS = {
    "roberta": ("RobertaClassificationHead", "RobertaConfig", "tanh"),
    "electra": ("ElectraClassificationHead", "ElectraConfig", "gelu"),
    "mpnet": ("MPNetClassificationHead", "MPNetConfig", "tanh"),
    "big_bird": ("BigBirdClassificationHead", "BigBirdConfig", "gelu_tanh"),
}


@pytest.mark.parametrize("model", CLASSIFIERS)
@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_classifiers(model: str, kind: str) -> None:
    theirs, named_config, activation = CLASSIFIERS[model]
    made = getattr(modeling(model), theirs)(config(named_config, hidden_size=C, num_labels=3))
    made, h = redrawn(made), draw(2, T, C)
    what = {"labels": ["a", "b", "c"]} if kind == "classify" else {"outputs": 3}
    weights = named(made, dense="pooler.dense", out_proj="out")
    ours = part(Head, {"kind": kind, "hidden": True, "activation": activation, **what}, weights)
    assert_close(ours(h, WHERE), answer(made, h), **SAME)


def test_berts_pooler_is_a_sentence() -> None:
    made, h = redrawn(modeling("bert").BertPooler(config("BertConfig", hidden_size=C))), draw(2, T, C)
    given = {"kind": "sentence", "pool": "first", "hidden": True, "unit": False}
    assert_close(part(Head, given, named(made, dense="pooler.dense"))(h, WHERE), answer(made, h), **SAME)


def test_electras_discriminator() -> None:
    made = redrawn(modeling("electra").ElectraDiscriminatorPredictions(config("ElectraConfig", hidden_size=C)))
    h = draw(2, T, C)
    ours = part(Head, "replaced", named(made, dense="dense", dense_prediction="out"))
    logits = answer(made, h)
    assert_close(ours(h, WHERE)[..., 0], logits, **SAME)
    targets = (torch.arange(2 * T).view(2, T) % 3 == 0).long()
    known = nn.functional.binary_cross_entropy_with_logits(logits, targets.double(), reduction="none")
    targets[0, 4] = -100
    assert_close(ours.loss(h, targets, WHERE), known.masked_fill(targets == -100, 0), **SAME)
    other = nn.functional.binary_cross_entropy_with_logits(logits, 1.0 - targets.double(), reduction="none")
    want = (0.8 * known + 0.2 * (known + other) / 2).masked_fill(targets == -100, 0)
    assert_close(ours.loss(h, targets, WHERE, 0.2), want, **SAME)
