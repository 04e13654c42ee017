"""Softmax and cross attention against a plain form and torch.nn.MultiheadAttention; what dropout may do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.attention.heads import Headed
from anyformer.core.build import fill_all
from anyformer.core.context import Context, Source, Where
from anyformer.core.layer import Layer
from anyformer.core.roles import Mixer
from anyformer.core.spec import Site, from_dict
from anyformer.core.tape import Tape

C, E = 20, 11  # widths of the stream and of a source
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
# Times with holes (-1: no token), and coordinates that are not the times.
WHERE = Where(
    torch.tensor([[0, 1, 2, 3, 4, 5, 6], [-1, 0, 1, 2, -1, 3, 4]]),
    torch.tensor([[0, 1, 3, 4, 8, 9, 12], [5, 6, 6, 7, 9, 20, 21]])[..., None],
    {},
)
THERE = Where(torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 3, -1]]), torch.tensor([[2, 3, 5, 7, 9]] * 2)[..., None], {})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


X, Y = draw(2, 7, C, seed=1), draw(2, 5, E, seed=2)


def build(kind: str, **fields: Any) -> Layer:
    """A mixer alone, in float64, with weights that are not small."""
    source = {"source_width": E} if kind == "cross" else {}
    spec = from_dict(Mixer, {"kind": kind, **source, **fields})
    mixer = spec.build(Site("mixer", C, sources=frozenset({"source"}))).double()
    fill_all(mixer, 0)
    with torch.no_grad():
        for number, weight in enumerate(mixer.parameters()):
            weight.copy_(0.5 * draw(*weight.shape, seed=number + 3))
    return mixer


def call(mixer: Layer, x: Tensor = X, y: Tensor = Y, tape: Tape | None = None) -> Tensor:
    """(B, T, C), without a state."""
    return mixer(x, Context(WHERE, {"source": Source(y, THERE)}, tape))[0]


# the plain form


def turned(x: Tensor, theta: float) -> Tensor:
    """(B, H, T, D): pairs (i, i + D/2) as complex numbers, turned by p theta^(-2i/D)."""
    size = x.shape[-1]
    angle = WHERE.coords[:, None] * theta ** (-torch.arange(0, size, 2).double() / size)
    z = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag], -1)


def normed(x: Tensor, norm: str | None, weight: dict[str, Tensor]) -> Tensor:
    """Over the last axis, with eps 0.3."""
    if norm is None:
        return x
    if norm == "layer":
        x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 0.3).sqrt() * weight["weight"] + weight.get("bias", 0)


def by_hand(mixer: Layer, kind: str, x: Tensor, y: Tensor, f: dict[str, Any]) -> Tensor:
    """The mixer's fields f in the order of the papers: project, normalise, turn, scale, cap, bias, mask, softmax."""
    named = dict(mixer.named_parameters())
    heads, groups, size = f["heads"], f.get("kv_heads", f["heads"]), f.get("head_size", C // f["heads"])
    over = f.get("qk_norm_over", "head")

    def made(name: str, z: Tensor, count: int) -> Tensor:
        z = F.linear(z, named[f"{name}.weight"], named.get(f"{name}.bias"))
        norm = f["qk_norm"]["kind"] if "qk_norm" in f and name != "v" else None
        own = {end: named[f"{name}_norm.{end}"] for end in ("weight", "bias") if f"{name}_norm.{end}" in named}
        z = normed(z, norm, own) if over == "all_heads" else z
        z = z.unflatten(-1, (count, size))
        z = normed(z, norm, own) if over == "head" else z
        return z.transpose(1, 2).repeat_interleave(heads // count, 1)  # (B, H, T, D)

    read, there = (y, THERE) if kind == "cross" else (x, WHERE)
    q, k, v = made("q", x, heads), made("k", read, groups), made("v", read, groups)
    if isinstance(f.get("position"), dict):
        q, k = turned(q, f["position"]["theta"]), turned(k, f["position"]["theta"])
    scores = f.get("scale", size**-0.5) * q @ k.mT
    if "softcap" in f:
        scores = f["softcap"] * torch.tanh(scores / f["softcap"])
    if f.get("position") == "alibi":
        slopes = 2.0 ** (-8 * torch.arange(1, heads + 1).double() / heads)
        scores = scores - slopes[:, None, None] * (WHERE.coords - there.coords.mT).abs()[:, None]
    seen = there.real[:, None].expand(-1, x.shape[1], -1)
    if kind == "softmax":
        seen = seen & (there.time[:, None] <= WHERE.time[:, :, None])
    weights = scores.masked_fill(~seen[:, None], -1e300).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(-2), named["o.weight"], named.get("o.bias"))


def assert_alike(mixer: Layer, kind: str, fields: dict[str, Any]) -> None:
    """Outputs of tokens, and the gradients of a random sum of them, by every parameter and input."""
    x, y = X.clone().requires_grad_(), Y.clone().requires_grad_()
    leaves = [*mixer.parameters(), x, *([y] if kind == "cross" else [])]
    results = []
    for out in (call(mixer, x, y), by_hand(mixer, kind, x, y, fields)):
        results.append(
            [out[WHERE.real], *torch.autograd.grad((out * draw(*out.shape, seed=9))[WHERE.real].sum(), leaves)]
        )
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, **TIGHT)


RMS, LAYER = {"kind": "rms", "eps": 0.3}, {"kind": "layer", "eps": 0.3}
ROTARY = {"kind": "rotary", "theta": 50.0}
GROUPED = {"heads": 4, "kv_heads": 2, "head_size": 6}
VARIANTS: dict[str, dict[str, Any]] = {
    "qwen2": {**GROUPED, "position": ROTARY, "bias": True, "out_bias": False},
    "qwen3": {**GROUPED, "position": ROTARY, "qk_norm": RMS},
    "olmo2": {**GROUPED, "position": ROTARY, "qk_norm": RMS, "qk_norm_over": "all_heads"},
    "gemma2": {**GROUPED, "position": ROTARY, "softcap": 1.3, "scale": 0.8},
    "gpt_neo": {"heads": 5, "scale": 1.0, "out_bias": True},
    "layer": {"heads": 5, "kv_heads": 1, "qk_norm": LAYER, "bias": True},
    "layer-all": {"heads": 6, "kv_heads": 3, "head_size": 3, "qk_norm": LAYER, "qk_norm_over": "all_heads"},
    "alibi": {"heads": 4, "position": "alibi", "qk_norm": RMS, "softcap": 0.9},  # a term that no cap may touch
}


@pytest.mark.parametrize("name", VARIANTS)
def test_softmax_is_the_plain_form(name: str) -> None:
    assert_alike(build("softmax", **VARIANTS[name]), "softmax", VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_cross_is_the_plain_form(name: str) -> None:
    fields = {key: value for key, value in VARIANTS[name].items() if value is not ROTARY}
    assert_alike(build("cross", **fields), "cross", fields)


@pytest.mark.parametrize(("name", "q", "k"), [("qwen3", 6, 6), ("olmo2", 24, 12)])
def test_norms_are_as_wide_as_a_head_or_as_all(name: str, q: int, k: int) -> None:
    named = build("softmax", **VARIANTS[name]).named_parameters()
    assert {path: weight.shape[0] for path, weight in named if "_" in path} == {"q_norm.weight": q, "k_norm.weight": k}


@pytest.mark.parametrize("kind", ["softmax", "cross"])
def test_what_is_normalised_over_without_a_norm_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"mixer\.qk_norm_over: 'all_heads' without a norm does nothing; give qk_norm"):
        build(kind, heads=4, qk_norm_over="all_heads")


@pytest.mark.parametrize("name", ["qwen3", "olmo2"])
def test_norms_work_in_their_own_precision_under_autocast(name: str) -> None:
    """A warning that input and weights differ, an error here, would say that they do not; padding stays finite."""
    mixer = build("softmax", **VARIANTS[name]).float()
    assert isinstance(mixer, Headed)
    coarse = draw(2, 3, 4, 6).bfloat16()
    assert mixer.normed(mixer.q_norm, coarse).dtype == torch.bfloat16  # the mask's dtype is that of q
    with torch.autocast("cpu", torch.bfloat16):
        out = call(mixer, X.float())
    exact = call(mixer, X.float())
    assert out.dtype == torch.bfloat16
    assert (out - exact)[WHERE.real].norm() < 0.02 * exact[WHERE.real].norm()
    grads = torch.autograd.grad(out.float().square().sum(), list(mixer.parameters()))
    assert all(grad.isfinite().all() for grad in grads)


@torch.no_grad()
def test_a_high_cap_leaves_scores_and_a_low_one_leaves_the_mean() -> None:
    plain, high, low = (build("softmax", heads=4, softcap=cap) for cap in (None, 1e5, 1e-5))
    assert_close(call(high), call(plain), rtol=0, atol=1e-7)
    values = F.linear(X[0], low.get_parameter("v.weight"))
    means = values.cumsum(0) / torch.arange(1, 8)[:, None]
    assert_close(call(low)[0], F.linear(means, low.get_parameter("o.weight")), rtol=0, atol=1e-3)


# torch.nn


@pytest.mark.parametrize(("bias", "out_bias"), [(True, None), (False, None), (True, False), (False, True)])
@pytest.mark.parametrize("kind", ["softmax", "cross"])
def test_biases_are_those_of_torch(kind: str, bias: bool, out_bias: bool | None) -> None:
    """torch has all four biases or none; one that we lack is zero there. Weights too are compared."""
    mixer = build(kind, heads=5, bias=bias, out_bias=out_bias)
    named = mixer.state_dict()
    assert {name for name in named if name.endswith("bias")} == {
        *({"q.bias", "k.bias", "v.bias"} if bias else ()),
        *({"o.bias"} if (bias if out_bias is None else out_bias) else ()),
    }
    width = E if kind == "cross" else C
    theirs = nn.MultiheadAttention(C, 5, kdim=width, vdim=width, batch_first=True, dtype=torch.float64)
    weights = [named[f"{name}.weight"] for name in "qkv"]
    joined = {"in_proj_weight": torch.cat(weights)} if kind == "softmax" else {}
    apart = {f"{name}_proj_weight": weight for name, weight in zip("qkv", weights, strict=True)}
    theirs.load_state_dict(
        {
            **(joined or apart),
            "in_proj_bias": torch.cat([named.get(f"{name}.bias", torch.zeros(C)) for name in "qkv"]),
            "out_proj.weight": named["o.weight"],
            "out_proj.bias": named.get("o.bias", torch.zeros(C)),
        }
    )
    read, there = (Y, THERE) if kind == "cross" else (X, WHERE)
    seen = there.real[:, None] & ((there.time[:, None] <= WHERE.time[:, :, None]) | (kind == "cross"))
    mask = (~seen).repeat_interleave(5, 0) & WHERE.real.repeat_interleave(5, 0)[..., None]  # padding sees all: no NaN
    expected, shares = theirs(X, read, read, attn_mask=mask, average_attn_weights=False)
    assert_close(call(mixer)[WHERE.real], expected[WHERE.real], **TIGHT)
    call(mixer, tape=(tape := Tape(record=["mixer.weights"])))
    ours, theirs = (weights.transpose(1, 2)[WHERE.real] for weights in (tape["mixer.weights"], shares))
    assert_close(ours, theirs, **TIGHT)


def test_linear_attention_too_has_a_bias_of_its_own_on_the_way_out() -> None:
    names = {name for name, _ in build("linear", heads=4, bias=True, out_bias=False).named_parameters()}
    assert names == {"q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias", "o.weight"}


# dropout


@pytest.mark.parametrize("kind", ["softmax", "cross"])
@pytest.mark.parametrize("softcap", [None, 1.3])
@torch.no_grad()
def test_dropout_is_for_training_alone(kind: str, softcap: float | None) -> None:
    mixer, without = (build(kind, heads=4, dropout=rate, softcap=softcap) for rate in (0.4, 0.0))
    assert torch.equal(call(mixer.eval()), call(without.eval()))
    torch.manual_seed(0)
    assert (call(mixer.train()) - call(without)).abs().max() > 0.1


@torch.no_grad()
def test_a_tape_that_reads_weights_leaves_dropout_on() -> None:
    """What is recorded is the softmax; what is read has dropped some of it."""
    mixer, tape = build("softmax", heads=4, dropout=0.4).train(), Tape(record=["mixer.weights", "mixer.out"])
    torch.manual_seed(0)
    call(mixer, tape=tape)
    weights = tape["mixer.weights"]
    assert_close(weights.sum(-1), WHERE.real[:, None].double().expand(2, 4, 7), **TIGHT)
    values = F.linear(X, mixer.get_parameter("v.weight")).unflatten(-1, (4, 5))
    assert (torch.einsum("bhts,bshd->bthd", weights, values) - tape["mixer.out"]).abs().max() > 0.1
