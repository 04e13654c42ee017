"""Latent attention against transformers' DeepSeek modules; its two forms against each other; what it keeps."""

from math import log
from typing import Any

import pytest
import torch
from oracles.mixers import assert_same, mask, turns
from oracles.published import config, exact, modeling, redrawn
from torch import Tensor
from torch.testing import assert_close

from anyformer.attention.latent import LatentAttention
from anyformer.core.context import Context, Where
from anyformer.core.roles import Mixer
from anyformer.core.spec import Site, from_dict
from anyformer.core.state import Room
from anyformer.core.tape import Tape
from anyformer.core.tree import tensors

B, T, C = 2, 9, 24
SIZES = {"heads": 3, "head_size": 4, "shared_size": 6, "value_size": 7, "kv_rank": 10}
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixer(**fields: Any) -> LatentAttention:
    """Alone, in float64, with large weights."""
    built = from_dict(Mixer, {"kind": "latent", **SIZES, **fields}).build(Site("mixer", C))
    redrawn(built)
    assert isinstance(built, LatentAttention)
    return built


# transformers

NAMES = {
    "q_proj": "q",
    "q_a_proj": "q_down",
    "q_a_layernorm": "q_norm",
    "q_b_proj": "q_up",
    "kv_a_proj_with_mqa": "kv_down",
    "kv_a_layernorm": "kv_norm",
    "kv_b_proj": "kv_up",
    "o_proj": "o",
}


def reference(name: str, rope: dict[str, Any], **fields: Any) -> Any:
    """A config of theirs with our sizes."""
    return config(
        f"Deepseek{name[-2:].upper()}Config",
        hidden_size=C,
        num_attention_heads=SIZES["heads"],
        num_key_value_heads=SIZES["heads"],
        qk_nope_head_dim=SIZES["head_size"],
        qk_rope_head_dim=SIZES["shared_size"],
        v_head_dim=SIZES["value_size"],
        kv_lora_rank=SIZES["kv_rank"],
        rope_parameters=rope,
        **fields,
    )


@pytest.mark.parametrize(
    ("q_rank", "bias", "pairs", "scaled"),
    [(13, True, "neighbours", False), (None, False, "neighbours", True), (4, False, "halves", False)],
)
def test_it_is_the_attention_of_deepseek_v3(q_rank: int | None, bias: bool, pairs: str, scaled: bool) -> None:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 70.0}
    interleaved = pairs == "neighbours"
    made = reference("v3", rope, q_lora_rank=q_rank, attention_bias=bias, rope_interleave=interleaved)
    with exact():
        rotary = turns(modeling("deepseek_v3").DeepseekV3RotaryEmbedding(made), draw(B, T, C))
    if scaled:  # of the scores; of the rotary rates, rotary's own tests know
        made.rope_parameters = {**rope, "rope_type": "yarn", "factor": 6.0, "mscale_all_dim": 0.7}
    theirs = redrawn(modeling("deepseek_v3").DeepseekV3Attention(made, 0))
    scale = {"scale": (0.1 * 0.7 * log(6.0) + 1) ** 2 * 10**-0.5} if scaled else {}
    position = {"kind": "rotary", "theta": 70.0, "pairs": pairs}
    ours = mixer(q_rank=q_rank, bias=bias, position=position, **scale)
    assert_same(theirs, ours, NAMES, draw(B, T, C, seed=1), lambda x: theirs(x, rotary, mask(T))[0])


def test_it_is_the_attention_of_deepseek_v2() -> None:
    made = reference("v2", {"rope_type": "default", "rope_theta": 70.0}, q_lora_rank=13)
    theirs = redrawn(modeling("deepseek_v2").DeepseekV2Attention(made, 0))
    ours = mixer(q_rank=13, position={"kind": "rotary", "theta": 70.0, "pairs": "neighbours"})
    with exact():
        rotary = turns(modeling("deepseek_v2").DeepseekV2RotaryEmbedding(made), draw(B, T, C))
    assert_same(theirs, ours, NAMES, draw(B, T, C, seed=1), lambda x: theirs(x, mask(T), position_embeddings=rotary)[0])


# the two forms

STEPS = (4, 1, 3, 1)


def room(inplace: bool = False) -> Room:
    none = Where.start(B, 0)
    return Room(none, {}, T if inplace else None, 0, inplace, torch.float64)


def in_steps(one: LatentAttention, x: Tensor, inplace: bool = False) -> Tensor:
    """(B, T, C), in several calls; row 1 has a hole."""
    state, outs, at = one.init_state(room(inplace)), [], 0
    time = torch.stack([torch.arange(T), torch.tensor([0, 1, -1, 2, 3, 4, 5, 6, 7])])
    for size in STEPS:
        part = time[:, at : at + size]
        out, state = one(x[:, at : at + size], Context(Where(part, part[..., None], {})), state)
        outs.append(out)
        at += size
    return torch.cat(outs, 1)


VARIANTS: dict[str, dict[str, Any]] = {
    "published": {"q_rank": 13, "bias": True},
    "window": {"pattern": "causal & (sinks(1) | window(3))", "kv_rank": 30},
    "alibi": {"position": "alibi", "scale": 0.8},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_absorbed_is_what_is_expanded(name: str) -> None:
    """Outputs, and gradients through all calls by every weight and by the input."""
    one, results = mixer(**VARIANTS[name]), []
    for few in (0, T):
        one.few = few
        x = draw(B, T, C, seed=2).requires_grad_()
        out = in_steps(one, x)
        real = torch.ones(B, T).bool()
        real[1, 2] = False
        grads = torch.autograd.grad((out * draw(B, T, C, seed=3))[real].sum(), [x, *one.parameters()])
        results.append([out[real], *grads])
    for absorbed, expanded in zip(*results, strict=True):
        assert_close(absorbed, expanded, **TIGHT)


def test_few_tokens_are_those_for_which_it_costs_less() -> None:
    """Products that a head needs over 10⁶ tokens that are kept, by counting those of both forms."""
    rank, both, shared, S = 10, 11, 6, 10**6
    one = mixer()
    for tokens in (one.few, one.few + 1):
        absorbed = tokens * S * (2 * rank + shared)
        expanded = S * rank * both + tokens * S * (both + shared)
        assert (absorbed <= expanded) == (tokens == one.few)


@torch.no_grad()
def test_one_token_makes_no_keys_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    one, called = mixer(), []
    state = one(draw(B, 8, C), Context.start(B, 8), one.init_state(room()))[1]
    monkeypatch.setattr(one.kv_up, "forward", lambda x: called.append(x))
    one(draw(B, 1, C), Context.start(B, 1, 8), state)
    assert not called


@torch.no_grad()
@pytest.mark.parametrize("few", [0, T])
def test_weights_on_the_tape_are_the_same_in_both_forms(few: int) -> None:
    one, x, tape = mixer(), draw(B, T, C, seed=2), Tape(record=["mixer.weights", "mixer.out"])
    one(x, Context(Where.start(B, T), tape=tape))
    one.few = few
    now = Tape(record=["mixer.weights", "mixer.out"])
    state = one(x[:, :4], Context.start(B, 4), one.init_state(room()))[1]
    one(x[:, 4:], Context(Where.start(B, T - 4, 4), tape=now), state)
    assert_close(now["mixer.weights"], tape["mixer.weights"][:, :, 4:], **TIGHT)
    assert_close(now["mixer.out"], tape["mixer.out"][:, 4:], **TIGHT)


# the store


@torch.no_grad()
def test_a_token_keeps_its_vector_and_its_shared_key() -> None:
    one, x = mixer(), draw(B, T, C)
    state = one(x, Context.start(B, T), one.init_state(room()))[1]
    assert [value.shape for value in state.values] == [(B, T, 1, 10), (B, T, 1, 6)]
    vector, key = one.kv_down(x).split((10, 6), -1)
    for kept, made in zip(state.values, (one.kv_norm(vector), key), strict=True):
        assert_close(kept[:, :, 0], made, **TIGHT)
    full = from_dict(Mixer, {"kind": "softmax", "heads": 3, "head_size": 11}).build(Site("mixer", C)).double()
    more = full(x, Context.start(B, T), full.init_state(room()))[1]
    floats = [sum(x.numel() for x in tensors(past.values)) / B / T for past in (state, more)]
    assert floats == [16, 66]


@torch.no_grad()
def test_in_place_is_growing() -> None:
    one, x = mixer(q_rank=4), draw(B, T, C, seed=2)
    assert_close(in_steps(one, x, inplace=True), in_steps(one, x), **TIGHT)


# refusals


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mixer\.position: acts on embeddings; this mixer takes"):
        mixer(position="sinusoidal")
    with pytest.raises(ValueError, match=r"mixer\.position: rotary channels \(3\) must be even"):
        mixer(shared_size=3)
    with pytest.raises(ValueError, match=r"mixer: width \(24\) must be a multiple of heads \(5\), or give head_size"):
        mixer(heads=5, head_size=None)
    with pytest.raises(ValueError, match=r"mixer: the pattern 'full' lets tokens see later ones"):
        mixer(pattern="full").init_state(room())


def test_sizes_that_are_not_given_are_those_of_the_paper() -> None:
    """d_c = 4 d_h and d_h^R = d_h / 2 (DeepSeek-V2, section 2.1)."""
    built = from_dict(Mixer, {"kind": "latent", "heads": 3}).build(Site("mixer", C))
    shapes = {name: tuple(weight.shape) for name, weight in built.named_parameters()}
    assert shapes == {
        "q.weight": (3 * (8 + 4), C),
        "kv_down.weight": (32 + 4, C),
        "kv_norm.weight": (32,),
        "kv_up.weight": (3 * (8 + 8), 32),
        "o.weight": (C, 24),
    }
