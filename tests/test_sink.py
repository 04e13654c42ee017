"""A learned sink in the softmax: plain and fused forms, merged regions, and transformers' gpt-oss."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from oracles.mixers import assert_same, mask, turns
from oracles.published import config, exact, modeling, redrawn
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.core.build import fill_all
from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer
from anyformer.core.roles import Mixer
from anyformer.core.spec import Site, from_dict
from anyformer.core.tape import Tape
from anyformer.kernels.attention import Region, attend, fused, merge, plain
from anyformer.patterns.base import parse

B, T, S, H, D, C = 2, 5, 9, 6, 4, 20
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
SINK = torch.tensor([-30.0, -1.0, 0.0, 0.5, 2.0, 30.0], dtype=torch.float64)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def where(length: int, first: int, blank: int) -> Where:
    """Times that run on from `first`; row 1 has no token at `blank`."""
    time = torch.arange(first, first + length).repeat(B, 1)
    time[1, blank] = -1
    return Where(time, time[..., None], {})


def region(pattern: str, groups: int, scored: bool, sink: Tensor | None = SINK) -> Region:
    """T queries at the end of S keys."""
    q, k, v = draw(B, T, H, D, seed=1), draw(B, S, groups, D, seed=2), draw(B, S, groups, D, seed=3)
    scores = draw(1, H, T, S, seed=4) if scored else None
    return Region(q, k, v, where(T, S - T, 2), where(S, 0, 1), parse(pattern), 0.7, scores, sink=sink)


def keys(one: Region, chosen: list[int], sink: Tensor | None) -> Region:
    """Only these of the keys."""
    scores = None if one.scores is None else one.scores[..., chosen]
    there = Where(one.k_where.time[:, chosen], one.k_where.coords[:, chosen], {})
    return replace(one, k=one.k[:, chosen], v=one.v[:, chosen], k_where=there, scores=scores, sink=sink)


def run(one: Region, form: Callable[[Region], Tensor]) -> list[Tensor]:
    """The outputs of real queries, and the gradients of a random sum of them."""
    names = [name for name in ("q", "k", "v", "scores", "sink") if getattr(one, name) is not None]
    leaves = [getattr(one, name).detach().clone().requires_grad_() for name in names]
    out = form(replace(one, **dict(zip(names, leaves, strict=True))))
    real = one.q_where.real
    return [out[real], *torch.autograd.grad((out * draw(*out.shape, seed=5))[real].sum(), leaves)]


def by_hand(one: Region) -> Tensor:
    """A softmax over one more column, which is then left out."""
    assert one.sink is not None
    k, v = (x.repeat_interleave(H // x.shape[2], 2) for x in (one.k, one.v))
    scores = torch.einsum("bthd,bshd->bhts", one.q, k) * one.scale + (0 if one.scores is None else one.scores)
    scores = scores.masked_fill(~one.seen[:, None], -torch.inf)
    weights = torch.cat([scores, one.sink[:, None, None].expand(B, H, T, 1)], -1).softmax(-1)[..., :-1]
    return torch.einsum("bhts,bshd->bthd", weights, v)


cases = pytest.mark.parametrize(
    ("pattern", "groups", "scored"),
    [
        ("causal", 6, False),
        ("causal & window(3)", 2, True),
        ("full", 1, True),
        ("causal & (sinks(2) | window(2))", 3, False),
    ],
)


@cases
@pytest.mark.parametrize(
    "form", [lambda r: plain(r)[0], fused, lambda r: attend([r])], ids=["plain", "fused", "attend"]
)
def test_a_sink_is_one_more_column(form: Callable[[Region], Tensor], pattern: str, groups: int, scored: bool) -> None:
    one = region(pattern, groups, scored)
    for ours, theirs in zip(run(one, form), run(one, by_hand), strict=True):
        assert_close(ours, theirs, **TIGHT)


def test_it_is_there_where_fast_forms_need_no_mask() -> None:
    """Every row has the times 0 … T-1, and nothing else is asked."""
    time = torch.arange(T).repeat(B, 1)
    here = Where(time, time[..., None], {})
    one = replace(keys(region("causal", 2, False), list(range(T)), SINK), q_where=here, k_where=here, straight=True)
    for ours, theirs in zip(run(one, fused), run(one, by_hand), strict=True):
        assert_close(ours, theirs, **TIGHT)


@cases
def test_a_sink_is_a_region(pattern: str, groups: int, scored: bool) -> None:
    """Its log-sum-exp is its score, its output 0; and it may go with any one of several regions."""
    one = region(pattern, groups, scored)

    def apart(r: Region) -> Tensor:
        assert r.sink is not None
        return merge([plain(replace(r, sink=None)), (torch.zeros_like(r.q), r.sink[:, None].expand(B, H, T))])[0]

    def beside(r: Region) -> Tensor:
        return attend([keys(r, [0, 3, 4, 8], None), keys(r, [1, 2, 5, 6, 7], r.sink)])

    expected = run(one, lambda r: plain(r)[0])
    for form in (apart, beside):
        for ours, theirs in zip(run(one, form), expected, strict=True):
            assert_close(ours, theirs, **TIGHT)
    total = torch.logaddexp(plain(replace(one, sink=None))[1], SINK[:, None])
    assert_close(plain(one)[1], total, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", [lambda r: plain(r)[0], fused], ids=["plain", "fused"])
def test_who_sees_nothing_but_the_sink_takes_nothing(form: Callable[[Region], Tensor], dtype: torch.dtype) -> None:
    one = region("causal", 2, True)
    one = replace(one, k_where=Where(torch.full((B, S), -1), one.k_where.coords, {}))
    names = ("q", "k", "v", "scores", "sink")
    leaves = [getattr(one, name).to(dtype).requires_grad_() for name in names]
    out = form(replace(one, **dict(zip(names, leaves, strict=True))))
    assert out.dtype == dtype and not out.any()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.float().sum(), leaves))


def mixer(**fields: object) -> Layer:
    """Alone, in float64, with large weights."""
    built = from_dict(Mixer, {"kind": "softmax", "heads": 4, **fields}).build(Site("mixer", C)).double()
    fill_all(built, 0)
    return built


def test_a_declared_sink_starts_where_it_is_told() -> None:
    assert_close(mixer(sink=-1.5).get_parameter("sink").data, torch.full((4,), -1.5).double())
    assert "sink" not in dict(mixer().named_parameters())


@torch.no_grad()
def test_a_low_sink_takes_nothing_and_a_high_one_all() -> None:
    x, ctx = draw(B, T, C, seed=6), Context.start(B, T)
    out = mixer()(x, ctx)[0]
    assert_close(mixer(sink=-1e9)(x, ctx)[0], out, **TIGHT)
    assert_close(mixer(sink=1e9)(x, ctx)[0], torch.zeros_like(out))


@torch.no_grad()
def test_the_weights_on_the_tape_are_what_the_sink_leaves() -> None:
    x, tape = draw(B, T, C, seed=6), Tape(record=["mixer.weights", "mixer.out"])
    built = mixer(sink=0.7)
    built(x, Context(Where.start(B, T), tape=tape))
    weights, values = tape["mixer.weights"], F.linear(x, built.get_parameter("v.weight")).unflatten(-1, (4, 5))
    assert (weights.sum(-1) < 0.99).all()
    assert_close(torch.einsum("bhts,bshd->bthd", weights, values), tape["mixer.out"], **TIGHT)


@pytest.mark.parametrize(("kind", "window"), [("full_attention", None), ("sliding_attention", 3)])
def test_it_is_the_attention_of_gpt_oss(kind: str, window: int | None) -> None:
    sizes = {"hidden_size": C, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}
    more = {"layer_types": [kind], "rope_parameters": {"rope_type": "default", "rope_theta": 70.0}}
    made = config("GptOssConfig", **sizes, **more, num_hidden_layers=1, sliding_window=3)
    theirs = redrawn(modeling("gpt_oss").GptOssAttention(made, 0))
    ours = mixer(
        heads=6,
        kv_heads=2,
        head_size=8,
        pattern=f"causal & window({window})" if window else "causal",
        position={"kind": "rotary", "theta": 70.0},
        bias=True,
        sink=0.0,
    )
    x, names = draw(B, T, C, seed=6), {f"{name}_proj": name for name in "qkvo"} | {"sinks": "sink"}
    with exact():
        rotary = turns(modeling("gpt_oss").GptOssRotaryEmbedding(made), x)
    assert_same(theirs, ours, names, x, lambda x: theirs(x, rotary, mask(T, window))[0])
