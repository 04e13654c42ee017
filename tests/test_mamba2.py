"""Mamba-2 against transformers' own, alone, in its model and beside attention; its chunks against the recurrence."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from oracles.published import config, exact, modeling, redrawn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.attention.mamba2 import Mamba2
from anyformer.core.build import fill_all
from anyformer.core.clock import clock
from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel, Mixer
from anyformer.core.spec import Site, from_dict
from anyformer.core.state import Room
from anyformer.kernels.mamba2 import chunked, scan

C, T, V = 10, 19, 23
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
ENDS = ("weight", "bias")
MAPS = ("gate", "v", "k", "q", "dt")  # in the order of in_proj
SAME = {
    "conv1d.weight": "conv.weight",
    "conv1d.bias": "conv.bias",
    "norm.weight": "norm.weight",
    "out_proj.weight": "o.weight",
    "out_proj.bias": "o.bias",
    "A_log": "A_log",
    "D": "skip",
    "dt_bias": "dt_bias",
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def named(theirs: dict[str, Tensor], fields: dict[str, Any], width: int = C) -> dict[str, Tensor]:
    """The weights of transformers' mixer under our names."""
    inner, shared = (
        fields["heads"] * fields.get("head_size", 2 * width // fields["heads"]),
        fields["groups"] * fields["state"],
    )
    ours = {SAME[name]: x for name, x in theirs.items() if name in SAME}
    for end in ENDS:
        if (whole := theirs.get(f"in_proj.{end}")) is not None:
            parts = whole.split([inner, inner, shared, shared, fields["heads"]])
            ours |= {f"{name}.{end}": part for name, part in zip(MAPS, parts, strict=True)}
    return ours


# transformers' mixer

KEYS = {
    "heads": "num_heads",
    "head_size": "head_dim",
    "state": "state_size",
    "groups": "n_groups",
    "kernel": "conv_kernel",
    "bias": "use_bias",
    "conv_bias": "use_conv_bias",
    "eps": "layer_norm_epsilon",
    "activation": "hidden_act",
    "time_step_limit": "time_step_limit",
    "chunk": "chunk_size",
}
USUAL = {"heads": 6, "head_size": 5, "state": 7, "groups": 2, "kernel": 4, "eps": 0.3, "chunk": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    "usual": USUAL,
    "one group": {**USUAL, "groups": 1, "kernel": 2, "conv_bias": False, "bias": True, "chunk": 3},
    "a group a head": {**USUAL, "groups": 6, "state": 1, "kernel": 5, "activation": "gelu", "chunk": 64},
    "limited": {**USUAL, "time_step_limit": (0.3, 1.1), "bias": True},
}
PLACE, LENGTHS = torch.arange(T), torch.tensor([[T], [9], [1]])
PADDING = {"none": None, "right": PLACE < LENGTHS, "left": PLACE >= T - LENGTHS}


def reference(fields: dict[str, Any]) -> nn.Module:
    keys = {KEYS[name]: value for name, value in fields.items()}
    settings = config("Mamba2Config", hidden_size=C, expand=3, num_hidden_layers=1, **keys)
    return redrawn(modeling("mamba2").Mamba2Mixer(settings, 0))


def mixer(fields: dict[str, Any], weights: dict[str, Tensor] | None = None) -> Layer:
    built = from_dict(Mixer, {"kind": "mamba2", **fields}).build(Site("mixer", C)).double()
    redrawn(built)
    if weights is not None:
        built.load_state_dict(weights)
    return built


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("side", PADDING)
def test_it_is_the_published_mixer(name: str, side: str) -> None:
    """Outputs and, through them, the gradients of inputs and of every weight."""
    fields, real = VARIANTS[name], PADDING[side]
    if side == "left" and fields.get("bias"):
        pytest.skip("the published convolution reads the bias of padding to the left")
    theirs = reference(fields)
    ours, x = mixer(fields, named(theirs.state_dict(), fields)), draw(3, T, C)
    where = clock(torch.zeros(3, T), real, {}, None, None)[0]
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    with exact():
        want = theirs(other, attention_mask=None if real is None else real.double())
    got = ours(mine, Context(where, straight=real is None))[0]
    assert_close(got[where.real], want[where.real], **TIGHT)
    weights = draw(*got.shape, seed=1)[where.real]
    (got[where.real] * weights).sum().backward()
    (want[where.real] * weights).sum().backward()
    assert mine.grad is not None and other.grad is not None
    assert_close(mine.grad[where.real], other.grad[where.real], **TIGHT)
    grads = named({key: p.grad for key, p in theirs.named_parameters() if p.grad is not None}, fields)
    assert grads.keys() == dict(ours.named_parameters()).keys()
    for key, parameter in ours.named_parameters():
        assert_close(parameter.grad, grads[key], **TIGHT)


@torch.no_grad()
@pytest.mark.parametrize("slack", [0, 3])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_cut_text_gives_what_the_whole_gives(name: str, slack: int) -> None:
    """Two documents a row, some places empty; calls of one token are the recurrence, others go in chunks."""
    layer, x = mixer(VARIANTS[name]), draw(2, T, C)
    real = torch.rand(2, T, generator=torch.Generator().manual_seed(4)) < 0.8
    time = torch.where(real, real.long().cumsum(1) - 1, -1)
    start = torch.where(real, torch.where(time >= 6, 6, 0), -1)
    where = Where(time, time[..., None], {"start": start})
    whole = layer(x, Context(where))[0]
    state, outs, at = layer.init_state(Room(where.none, {}, None, slack, False, torch.float64)), [], 0
    for size in (5, 1, 1, 2, 1, 9):
        part = Where(*(value[:, at : at + size] for value in (time, where.coords)), {"start": start[:, at : at + size]})
        out, state = layer(x[:, at : at + size], Context(part), state)
        outs.append(out)
        at += size
    assert at == T
    assert_close(torch.cat(outs, 1)[real], whole[real], **TIGHT)
    # and each text what it gives alone
    for row in range(2):
        for begin in (0, 6):
            its = real[row] & (start[row] == begin)
            alone = layer(x[row, its][None], Context.start(1, int(its.sum())))[0]
            assert_close(whole[row, its], alone[0], **TIGHT)


# sums that fade

Form = Callable[..., tuple[Tensor, Tensor, Tensor]]
ONE_TEXT = [[0] * 13, [0] * 13]
TEXTS = [[0] * 4 + [4] * 3 + [7] + [8] * 5, [2] * 9 + [11] * 4]
PADDED = [[0] * 4 + [-1] + [4] * 3 + [-1] * 2 + [7] * 3, [-1] * 5 + [0] * 8]


def given(starts: Sequence[Sequence[int]], scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v, a, start, S, text: two rows, six heads in three groups."""
    start = torch.tensor(starts)
    real = (start >= 0)[:, None].to(dtype)
    q, k, v = draw(2, 3, 13, 4, seed=1), draw(2, 3, 13, 4, seed=2), draw(2, 6, 13, 5, seed=3)
    a, S = -scale * draw(2, 6, 13, seed=4).square(), draw(2, 6, 4, 5, seed=5)
    q, k, v, a, S = (x.to(dtype) for x in (q, k, v, a, S))
    return [q, k, v * real[..., None], a * real, start, S, torch.zeros(2, dtype=torch.long)]


def in_whole(q: Tensor, k: Tensor, v: Tensor, a: Tensor, start: Tensor, S: Tensor, text: Tensor) -> Any:
    """Without a recurrence: every pair of tokens by itself, the decay between them a product."""
    repeat, length = v.shape[1] // k.shape[1], v.shape[2]
    q, k, e = q.repeat_interleave(repeat, 1), k.repeat_interleave(repeat, 1), a.exp()
    latest = torch.cat([text[:, None], start], 1).cummax(1).values
    outs = []
    for t in range(length + 1):
        at, total = min(t, length - 1), 0.0
        for s in range(at + 1):
            mine = (start[:, s] == latest[:, at + 1])[:, None, None, None]
            total = (
                total + mine * e[:, :, s + 1 : at + 1].prod(2)[..., None, None] * k[:, :, s, :, None] * v[:, :, s, None]
            )
        first = (latest[:, at + 1] == text)[:, None, None, None]
        total = total + first * e[:, :, : at + 1].prod(2)[..., None, None] * S
        outs.append(total if t == length else torch.einsum("bhd,bhde->bhe", q[:, :, t], total))
    return torch.stack(outs[:-1], 2), outs[-1], latest[:, -1]


def results(form: Form, inputs: list[Tensor], *more: int) -> list[Tensor]:
    """Outputs where there is a token, the sums, and the gradients of a random sum of both."""
    q, k, v, a, start, S, text = inputs
    leaves = [x.clone().requires_grad_() for x in (q, k, v, a, S)]
    out, sums, text = form(*leaves[:4], start, leaves[4], text, *more)
    real = (start >= 0)[:, None].expand(out.shape[:3])
    weights = draw(*out.shape, seed=6).to(out.dtype), draw(*sums.shape, seed=7).to(out.dtype)
    total = (out * weights[0])[real].sum() + (sums * weights[1]).sum()
    grads = list(torch.autograd.grad(total, leaves))
    for at, mask in ((0, real[:, :1]), (1, real[:, :1]), (2, real), (3, real)):  # padding has nothing to learn
        grads[at] = grads[at] * (mask[..., None] if grads[at].dim() == 4 else mask)
    return [out.detach()[real], sums.detach(), text, *grads]


@pytest.mark.parametrize("starts", [ONE_TEXT, TEXTS, PADDED], ids=["one text", "texts", "padded"])
def test_the_recurrence_is_its_sum(starts: Sequence[Sequence[int]]) -> None:
    for ours, theirs in zip(results(scan, given(starts)), results(in_whole, given(starts)), strict=True):
        assert_close(ours, theirs, **TIGHT)


@pytest.mark.parametrize("chunk", [1, 3, 4, 13, 64])
@pytest.mark.parametrize("starts", [ONE_TEXT, TEXTS, PADDED], ids=["one text", "texts", "padded"])
def test_chunks_are_the_recurrence(starts: Sequence[Sequence[int]], chunk: int) -> None:
    for ours, theirs in zip(results(chunked, given(starts), chunk), results(scan, given(starts)), strict=True):
        assert_close(ours, theirs, **TIGHT)


@pytest.mark.parametrize("scale", [30.0, 3000.0])
def test_decays_neither_overflow_nor_vanish_into_nothing(scale: float) -> None:
    """In float32 exp of a running sum alone would be 0, and its inverse infinite."""
    coarse = results(chunked, given(TEXTS, scale, torch.float32), 13)
    fine = results(scan, given(TEXTS, scale))
    for ours, theirs in zip(coarse, fine, strict=True):
        assert ours.isfinite().all()
        assert_close(ours.double(), theirs.double(), rtol=5e-3, atol=1e-4)


# first weights, refusals


def test_it_begins_as_published() -> None:
    """Rates uniform in [1, 16], steps whose logarithm is uniform in [1e-3, 1e-1]."""
    layer = Mamba2(heads=2000, head_size=1, state=1).build(Site("mixer", 3)).double()
    fill_all(layer, 0)
    rates, steps = layer.A_log.exp(), F.softplus(layer.dt_bias)
    assert 1 <= rates.min() < 1.1 and 15.9 < rates.max() <= 16 and abs(rates.mean() - 8.5) < 0.3
    assert 9.99e-4 <= steps.min() < 1.02e-3 and 0.098 < steps.max() <= 0.10001
    assert abs(steps.log10().mean() + 2) < 0.05 and layer.skip.eq(1).all() and layer.norm.weight.eq(1).all()
    assert layer.conv.weight.abs().max() <= 0.5 and layer.conv.weight.std() > 0.25


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"heads": 4, "groups": 3}, r"mixer: heads \(4\) must be a multiple of groups \(3\)"),
        ({"heads": 3}, r"mixer: 2 width \(20\) must be a multiple of heads \(3\), or give head_size"),
        ({"heads": 4, "time_step_limit": (0.2, 0.1)}, r"mixer: time_step_limit \(0.2, 0.1\) should rise"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Mamba2(**fields).build(Site("mixer", C))


# whole models

IDS = torch.randint(V, (3, T), generator=torch.Generator().manual_seed(3))
RMS = {"kind": "rms", "eps": 0.2}


def model(blocks: list[dict[str, Any]], weights: dict[str, Tensor], width: int) -> Model:
    body = {
        "kind": "stack",
        "norm": RMS,
        "blocks": [{**block, "residual": {"kind": "pre", "norm": RMS}} for block in blocks],
    }
    tree = {"kind": "decoder", "width": width, "vocabulary": V, "body": body, "head": "language"}
    built = from_dict(AnyModel, tree).build(dtype=torch.float64)
    built.load_state_dict(weights)
    return built.eval()


@torch.no_grad()
def assert_models_agree(theirs: nn.Module, ours: Model) -> None:
    """Logits, whole and cut, padded on either side."""
    for side, real in PADDING.items():
        there = torch.ones_like(IDS, dtype=torch.bool) if real is None else real
        with exact():
            places = (there.long().cumsum(1) - 1).clamp(min=0)
            given = {"position_ids": places} if side == "left" and theirs.config.model_type == "bamba" else {}
            want = theirs(IDS, attention_mask=there.long(), use_cache=False, **given).logits
        assert_close(ours(IDS, real=real)[there], want[there], rtol=1e-9, atol=1e-9)
        state, outs = ours.init_state(3), []
        for ids, mask in zip(IDS.split([7, 1, 1, 10], 1), there.split([7, 1, 1, 10], 1), strict=True):
            out, state = ours(ids, state, real=mask)
            outs.append(out)
        assert_close(torch.cat(outs, 1)[there], want[there], rtol=1e-9, atol=1e-9)


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def test_the_published_model_is_blocks_without_a_feed_forward() -> None:
    fields = {**USUAL, "eps": 0.2}
    keys = {KEYS[name]: value for name, value in fields.items()}
    sizes = {"hidden_size": C, "expand": 3, "num_hidden_layers": 2, "vocab_size": V}
    theirs = redrawn(modeling("mamba2").Mamba2ForCausalLM(config("Mamba2Config", **sizes, **keys)))
    state = theirs.state_dict()
    weights = {
        "embedding.weight": state["backbone.embeddings.weight"],
        "body.norm.weight": state["backbone.norm_f.weight"],
        "head.out.weight": state["lm_head.weight"],
    }
    for at in range(2):
        weights[f"body.blocks.{at}.residual.norm.mixer.weight"] = state[f"backbone.layers.{at}.norm.weight"]
        mine = named(under(f"backbone.layers.{at}.mixer.", state), fields)
        weights |= {f"body.blocks.{at}.mixer.{name}": x for name, x in mine.items()}
    block = {"kind": "block", "mixer": {"kind": "mamba2", **fields}, "ff": None}
    assert_models_agree(theirs, model([block] * 2, weights, C))


def test_bamba_is_state_spaces_and_attention() -> None:
    """Rotary positions turn half of a head's channels; every block has a gated feed-forward."""
    width, fields = 16, {**USUAL, "heads": 8, "head_size": 4, "eps": 0.2}
    settings = config(
        "BambaConfig", vocab_size=V, hidden_size=width, intermediate_size=11, num_hidden_layers=3, rms_norm_eps=0.2,
        num_attention_heads=2, num_key_value_heads=1, attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=4,
        mamba_n_groups=2, mamba_d_state=7, mamba_d_conv=4, mamba_expand=2, mamba_chunk_size=8, pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.5},
    )  # fmt: skip
    with exact():  # the rates of rotary positions are made with the model
        theirs = redrawn(modeling("bamba").BambaForCausalLM(settings))
    state = theirs.state_dict()
    weights = {
        "embedding.weight": state["model.embed_tokens.weight"],
        "body.norm.weight": state["model.final_layernorm.weight"],
        "head.out.weight": state["lm_head.weight"],
    }
    for at in range(3):
        its, ours = under(f"model.layers.{at}.", state), f"body.blocks.{at}"
        weights[f"{ours}.residual.norm.mixer.weight"] = its["input_layernorm.weight"]
        weights[f"{ours}.residual.norm.ff.weight"] = its["pre_ff_layernorm.weight"]
        for part in ("gate", "up", "down"):
            weights[f"{ours}.ff.{part}.weight"] = its[f"feed_forward.{part}_proj.weight"]
        mixed = {f"{name[0]}.weight": x for name, x in under("self_attn.", its).items()}
        mixed = mixed or named(under("mamba.", its), fields, width)
        weights |= {f"{ours}.mixer.{name}": x for name, x in mixed.items()}
    ff = {"kind": "gated", "hidden": 11}
    attention = {"kind": "softmax", "heads": 2, "kv_heads": 1}
    attention["position"] = {"kind": "rotary", "theta": 50.0, "channels": 4}
    mixers = [{"kind": "mamba2", **fields}, attention, {"kind": "mamba2", **fields}]
    assert_models_agree(theirs, model([{"kind": "block", "mixer": one, "ff": ff} for one in mixers], weights, width))
