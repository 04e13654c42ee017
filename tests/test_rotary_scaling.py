"""Scalings of rotary positions against stored numbers and transformers, in float64, and whole models."""

from collections.abc import Iterator
from math import pi
from typing import Any

import pytest
import torch
from oracles.published import exact
from torch import Tensor
from torch.testing import assert_close

from anyformer.core.context import Where
from anyformer.core.model import Model
from anyformer.core.overrides import expand
from anyformer.core.roles import AnyModel
from anyformer.core.spec import Site, from_dict
from anyformer.positions.rates import longrope, yarn
from anyformer.positions.rotary import Rotary, RotaryPosition

EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}
THETA, SIZE = 700.0, 10

SHORT, LONG = [1.0, 1.2, 1.5, 1.9, 2.8], [1.1, 2.2, 3.3, 5.5, 9.9]
YARN = {"kind": "yarn", "factor": 5.5, "trained": 300, "fast": 9.0, "slow": 0.7}
SEARCHED = {"short": SHORT, "long": LONG, "trained": 40, "amplitude": 1.157413187997964}

# What transformers 5.23 computes when its float32 is made float64: the rates, and the factor on cosine and sine.
STORED: dict[str, tuple[dict[str, Any], list[float], float]] = {
    "linear": (
        {"kind": "linear", "factor": 1.7},
        [0.5882352941176471, 0.15868339027649192, 0.04280671119439049, 0.011547613900151325, 0.0031151046895759238],
        1.0,
    ),
    "ntk": (
        {"kind": "ntk", "factor": 2.3, "trained": 30, "length": 71},
        [1.0, 0.18907883750849624, 0.03575080679356433, 0.006759720988517996, 0.0012781201863907654],
        1.0,
    ),
    "ntk of a shorter text": (
        {"kind": "ntk", "factor": 2.3, "trained": 30, "length": 5},
        [1.0, 0.2697617634700363, 0.07277140903046382, 0.01963094363025725, 0.00529567797227907],
        1.0,
    ),
    "yarn": (
        YARN,
        [1.0, 0.2697617634700363, 0.0529246611130646, 0.008923156195571477, 0.0009628505404143765],
        1.1704748092238426,
    ),
    "llama3": (
        {"kind": "llama3", "factor": 6.5, "trained": 900, "low": 1.3, "high": 4.4},
        [1.0, 0.2697617634700363, 0.07277140903046382, 0.011121529207356498, 0.0008147196880429338],
        1.0,
    ),
    "longrope of a short text": (
        {"kind": "longrope", **SEARCHED, "length": 40},
        [1.0, 0.2248014695583636, 0.048514272686975876, 0.010332075594872238, 0.0018913135615282394],
        1.157413187997964,
    ),
    "longrope": (
        {"kind": "longrope", **SEARCHED, "length": 41},
        [0.9090909090909091, 0.12261898339547103, 0.02205194213044358, 0.003569262478228591, 0.0005349169668968758],
        1.157413187997964,
    ),
    "proportional": (
        {"kind": "proportional", "share": 0.6, "factor": 1.9},
        [0.5263157894736842, 0.14197987551054542, 0.03830074159498096, 0.0, 0.0],
        1.0,
    ),
}
PUBLISHED = [
    ({"kind": "ntk_published", "factor": 2.3, "trained": 30}, {"kind": "ntk", "factor": 2.3, "trained": 30}),
    ({"kind": "longrope_published", **SEARCHED}, {"kind": "longrope", **SEARCHED}),
]


def place(scaling: dict[str, Any] | None, size: int = SIZE, **fields: Any) -> RotaryPosition:
    """A rotary scheme alone."""
    spec = from_dict(Rotary, {"theta": THETA, **fields, "scaling": scaling})
    return spec.build(Site("here", 2 * size, heads=2, head_size=size))


def at(*coords: int) -> Where:
    return Where(torch.arange(len(coords))[None], torch.tensor(coords)[None, :, None], {})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rates(part: RotaryPosition, length: int = 1) -> tuple[Tensor, float]:
    """The rates in a text of so many tokens, and the factor on cosine and sine."""
    powers = -torch.arange(0, part.channels, 2, dtype=torch.float64) / part.channels
    turns, amplitude = part.rates(powers, at(*range(length)))
    return turns.flatten(), amplitude


# the rates


@pytest.mark.parametrize("name", STORED)
def test_rates_are_the_stored_ones(name: str) -> None:
    scaling, expected, amplitude = STORED[name]
    turns, factor = rates(place(scaling))
    assert_close(turns, torch.tensor(expected, dtype=torch.float64), **EXACT)
    assert factor == pytest.approx(amplitude, rel=1e-14)


def test_llama3_slows_as_published() -> None:
    """Ratios of Llama 3.1's own numbers: theta 500,000, heads of 128, factor 8, trained on 8,192 tokens."""
    slowed, _ = rates(place({"kind": "llama3", "factor": 8.0, "trained": 8192}, 128, theta=5e5))
    ratio = slowed / rates(place(None, 128, theta=5e5))[0]
    assert ratio[:29].eq(1).all() and ratio[35:].eq(0.125).all()
    assert ratio[[29, 32]].tolist() == pytest.approx([0.8282, 0.3711], abs=5e-5)


def test_yarn_keeps_pairs_that_turn_often_and_interpolates_those_that_do_not() -> None:
    """Where bounds are not rounded, the pairs that turn just `fast` and `slow` times are at the ends of the ramp."""
    plain = rates(place(None, 16))[0]
    often = 500 * plain / (2 * pi)  # turns within a text of training
    fast, slow = float(often[2]), float(often[5])
    scaling = {"kind": "yarn", "factor": 4.0, "trained": 500, "fast": fast, "slow": slow, "rounded": False}
    ratio = rates(place(scaling, 16))[0] / plain
    assert_close(ratio, 1 - 0.75 * torch.tensor([0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1], dtype=torch.float64))


@pytest.mark.parametrize(("published", "lawful"), PUBLISHED)
@pytest.mark.parametrize("length", [11, 30, 31, 40, 41, 71])
def test_a_published_row_is_the_lawful_one_of_the_texts_own_length(
    published: dict[str, Any], lawful: dict[str, Any], length: int
) -> None:
    ours, theirs = rates(place(published), length), rates(place({**lawful, "length": length}))
    assert_close(ours[0], theirs[0], **EXACT)
    assert ours[1] == theirs[1]


@pytest.mark.parametrize(("published", "lawful"), PUBLISHED)
def test_every_text_has_its_own_length(published: dict[str, Any], lawful: dict[str, Any]) -> None:
    """Beside a longer row, with padding, and packed behind another text."""
    x = draw(2, 60, 2, SIZE)
    time = torch.stack([torch.arange(60), torch.arange(60).masked_fill(torch.arange(60) >= 45, -1)])
    start = torch.tensor([[0] * 50 + [50] * 10, [0] * 60])
    coords = torch.where(time >= 0, time - start, -1)[..., None]
    out = place(published)(x, Where(time, coords, {"start": start}))
    for row, first, last in ((0, 0, 50), (0, 50, 60), (1, 0, 45)):
        length = last - first
        alone = place({**lawful, "length": length})(x[row : row + 1, first:last], at(*range(length)))
        assert_close(out[row : row + 1, first:last], alone, **EXACT)


# what is turned


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@pytest.mark.parametrize("name", STORED)
def test_a_scaled_score_depends_on_the_difference_alone(name: str, pairs: str) -> None:
    part = place(STORED[name][0], pairs=pairs)
    q, k = draw(1, 1, 1, SIZE), draw(1, 1, 1, SIZE, seed=1)

    def score(i: int, j: int) -> Tensor:
        return (part(q, at(i)) * part(k, at(j))).sum()

    assert_close(score(49, 42), score(9, 2), rtol=0, atol=1e-11)
    assert abs(score(9, 2) - score(9, 3)) > 1e-3
    assert_close(part(q, at(123)).norm(), STORED[name][2] * q.norm())


def test_only_the_channels_that_turn_are_scaled() -> None:
    x = draw(1, 4, 2, SIZE)
    out = place({**YARN, "amplitude": 1.5}, channels=6)(x, at(0, 3, 5, 90))
    assert torch.equal(out[..., 6:], x[..., 6:])
    assert_close(out[0, 0, :, :6], 1.5 * x[0, 0, :, :6], **EXACT)


def test_an_unscaled_scheme_computes_what_it_did() -> None:
    """Bit for bit, in float32 too: models that are trained turn by these numbers."""
    part = place(None)
    for dtype in (torch.float32, torch.float64):
        powers = -torch.arange(0, SIZE, 2, dtype=dtype) / SIZE
        turns, amplitude = part.rates(powers, at(0))
        assert torch.equal(turns, THETA ** (-torch.arange(0, SIZE, 2, dtype=dtype) / SIZE)) and amplitude == 1
        x, where = draw(1, 3, 2, SIZE).to(dtype), at(0, 4, 333)
        assert torch.equal(place({"kind": "linear", "factor": 1.0})(x, where), part(x, where))


# models


def model(scaling: dict[str, Any] | None) -> Model:
    """Two blocks of grouped heads, in float64, with weights that are not small."""
    position = {"kind": "rotary", "theta": THETA, "scaling": scaling}
    mixer = {"kind": "softmax", "heads": 4, "kv_heads": 2, "head_size": SIZE, "position": position}
    body = {"kind": "stack", "blocks": [{"repeat": 2, "block": {"kind": "block", "mixer": mixer}}]}
    tree = {"kind": "decoder", "width": 12, "vocabulary": 13, "body": body}
    built = from_dict(AnyModel, expand(tree)).build(dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in built.parameters():
            weight.normal_(std=0.5, generator=generator)
    return built


def ids(length: int) -> Tensor:
    return torch.randint(13, (2, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["ntk", "yarn", "llama3", "longrope", "proportional"])
@torch.no_grad()
def test_a_scaled_model_is_not_changed_by_cuts(name: str) -> None:
    scaled, text = model(STORED[name][0]), ids(50)
    whole = scaled(text)
    for inplace in (False, True):
        state, outs, first = scaled.init_state(2, capacity=50 if inplace else None, inplace=inplace), [], 0
        for size in (7, 1, 35, 1, 1, 5):  # over the length of training
            out, state = scaled(text[:, first : first + size], state)
            outs.append(out)
            first += size
        assert_close(torch.cat(outs, 1), whole, rtol=1e-10, atol=1e-10)
    assert (whole - model(None)(text)).abs().max() > 1e-3


@pytest.mark.parametrize(("published", "lawful"), PUBLISHED)
@torch.no_grad()
def test_a_published_model_refuses_to_be_cut(published: dict[str, Any], lawful: dict[str, Any]) -> None:
    refusing, text = model(published), ids(50)
    message = r"^body\.blocks\.0\.mixer\.position: how fast pairs turn .* without a state, or take the scaling"
    with pytest.raises(ValueError, match=message):
        refusing.init_state(2)
    assert_close(refusing(text), model({**lawful, "length": 50})(text), rtol=1e-10, atol=1e-10)
    early = refusing(text[:, :29])  # a longer text turns otherwise from its beginning
    assert (refusing(text)[:, :29] - early).abs().max() > 1e-3


# refusals


@pytest.mark.parametrize(
    ("scaling", "fields", "words"),
    [
        ({"kind": "longrope", **SEARCHED, "length": 9}, {"channels": 8}, ["here.scaling.short", "4 pairs", "came 5"]),
        ({"kind": "longrope_published", **SEARCHED, "long": [2.0]}, {}, ["here.scaling.long", "5 pairs", "came 1"]),
        ({"kind": "ntk_published", "factor": 2.0, "trained": 9}, {"channels": 2}, ["here.scaling", "two or more"]),
        (
            {"kind": "ntk", "factor": 2.0, "trained": 9, "length": 9},
            {"channels": 2},
            ["here.scaling", "here there is 1"],
        ),
        ({"kind": "llama3", "factor": 2.0, "trained": 9, "low": 4.0}, {}, ["low (4.0) must be less than high (4.0)"]),
        ({"kind": "llama3", "factor": 0.0, "trained": 9}, {}, ["factor", "greater than 0"]),
        ({"kind": "dynamic", "factor": 2.0}, {}, ["no 'dynamic' here", "ntk_published"]),
    ],
)
def test_scalings_that_cannot_work_are_refused(
    scaling: dict[str, Any], fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:
        place(scaling, **fields)
    assert all(word in str(caught.value) for word in words), caught.value


# transformers


@pytest.fixture
def in_double() -> Iterator[None]:
    """Make the reference compute in float64: it asks for float32 by name, whatever the model's own type is."""
    pytest.importorskip("transformers")
    with exact():
        yield


def reference(rope: dict[str, Any], longest: int, size: int = SIZE) -> Any:
    """transformers' own part for these parameters, and its configuration."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=2 * size,
        num_attention_heads=2,
        head_dim=size,
        max_position_embeddings=longest,
        rope_parameters={"rope_theta": THETA, **rope},
    )
    return LlamaRotaryEmbedding(config)


YARN_KEYS = {"rope_type": "yarn", "factor": 5.5, "original_max_position_embeddings": 300}
LONG_KEYS = {
    "rope_type": "longrope",
    "short_factor": SHORT,
    "long_factor": LONG,
    "original_max_position_embeddings": 40,
}
# (parameters as published, the longest text, ours)
BESIDE: list[tuple[dict[str, Any], int, dict[str, Any] | None]] = [
    ({"rope_type": "default"}, 30, None),
    ({"rope_type": "linear", "factor": 1.7}, 30, {"kind": "linear", "factor": 1.7}),
    (
        {"rope_type": "proportional", "partial_rotary_factor": 0.7, "factor": 1.9},
        30,
        {"kind": "proportional", "share": 0.7, "factor": 1.9},
    ),
    ({"rope_type": "dynamic", "factor": 2.3}, 30, {"kind": "ntk_published", "factor": 2.3, "trained": 30}),
    ({"rope_type": "dynamic", "factor": 1.0}, 70, {"kind": "ntk_published", "factor": 1.0, "trained": 70}),
    (YARN_KEYS, 1650, {"kind": "yarn", "factor": 5.5, "trained": 300}),
    (
        {**YARN_KEYS, "beta_fast": 9.0, "beta_slow": 0.7, "truncate": False, "attention_factor": 0.83},
        1650,
        {**YARN, "rounded": False, "amplitude": 0.83},
    ),
    (
        {**YARN_KEYS, "beta_fast": 3.0, "beta_slow": 3.0, "truncate": False},
        1650,
        {**YARN, "fast": 3.0, "slow": 3.0} | {"rounded": False},
    ),
    (
        {**YARN_KEYS, "mscale": 0.7, "mscale_all_dim": 1.3},
        1650,
        {
            "kind": "yarn",
            "factor": 5.5,
            "trained": 300,
            "amplitude": yarn.amplitude(5.5, 0.7) / yarn.amplitude(5.5, 1.3),
        },
    ),
    (
        {
            **YARN_KEYS,
            "original_max_position_embeddings": 10**7,
            "beta_fast": 1e5,
        },  # the ramp ends beyond the last pair
        5 * 10**7,
        {"kind": "yarn", "factor": 5.5, "trained": 10**7, "fast": 1e5},
    ),
    (
        {**YARN_KEYS, "original_max_position_embeddings": 30},  # it begins before the first
        165,
        {"kind": "yarn", "factor": 5.5, "trained": 30},
    ),
    ({**YARN_KEYS, "factor": 1.0}, 300, {"kind": "yarn", "factor": 1.0, "trained": 300}),
    (
        {
            "rope_type": "llama3",
            "factor": 6.5,
            "original_max_position_embeddings": 900,
            "low_freq_factor": 1.3,
            "high_freq_factor": 4.4,
        },
        5850,
        {"kind": "llama3", "factor": 6.5, "trained": 900, "low": 1.3, "high": 4.4},
    ),
    (
        {**LONG_KEYS, "factor": 3.5},
        90,
        {"kind": "longrope_published", **SEARCHED, "amplitude": longrope.amplitude(3.5, 40)},
    ),
    (
        {**LONG_KEYS, "attention_factor": 0.77},
        90,
        {"kind": "longrope_published", **SEARCHED, "amplitude": 0.77},
    ),
    (
        LONG_KEYS,
        90,
        {"kind": "longrope_published", **SEARCHED, "amplitude": longrope.amplitude(90 / 40, 40)},
    ),
]


@pytest.mark.parametrize(
    ("rope", "longest", "scaling"),
    BESIDE,
    ids=[f"{index}-{rope['rope_type']}" for index, (rope, *_) in enumerate(BESIDE)],
)
@pytest.mark.parametrize("length", [17, 71])
@pytest.mark.usefixtures("in_double")
def test_what_is_turned_is_what_transformers_turns(
    rope: dict[str, Any], longest: int, scaling: dict[str, Any] | None, length: int
) -> None:
    """Rates, factor and layout at once, in texts on both sides of the length of training."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = draw(1, length, 2, SIZE)
    cos, sin = reference(rope, longest)(x, torch.arange(length)[None])
    want, _ = apply_rotary_pos_emb(x, x, cos, sin, unsqueeze_dim=2)
    assert_close(place(scaling)(x, at(*range(length))), want, rtol=1e-11, atol=1e-11)
