"""Position schemes against their formulas and published values, and the refusals of mixes that cannot work."""

from collections.abc import Sequence
from math import cos, log2, sin
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anyformer.core.build import fill_all
from anyformer.core.context import Context, Source, Where
from anyformer.core.layer import Layer, Part
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel, Mixer, Position
from anyformer.core.spec import Site, from_dict
from anyformer.core.tape import Tape
from anyformer.positions.alibi import slopes
from anyformer.positions.t5 import T5, bucket

EXACT = {"rtol": 0.0, "atol": 1e-12}


def place(
    kind: str, *, width: int = 12, heads: int | None = None, head_size: int | None = None, **options: object
) -> Part:
    """A scheme alone, in float64."""
    part = from_dict(Position, {"kind": kind, **options}).build(Site("here", width, heads=heads, head_size=head_size))
    fill_all(part.double(), 0)
    return part


def at(*coords: int) -> Where:
    coord = torch.tensor(coords)[None]
    return Where(torch.arange(len(coords))[None], coord[..., None], {})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# T5

AHEAD = [-128, -91, -64, -16, -15, -9, -8, -7, -1, 0, 1, 7, 8, 15, 16, 64, 128]
BOTH_WAYS = [15, 15, 14, 10, 9, 8, 8, 7, 1, 0, 17, 23, 24, 25, 26, 30, 31]
CAUSAL = [31, 29, 26, 16, 15, 9, 8, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("both_ways", "expected"), [(True, BOTH_WAYS), (False, CAUSAL)])
def test_t5_buckets_are_the_published_ones(both_ways: bool, expected: list[int]) -> None:
    assert bucket(torch.tensor(AHEAD), T5(both_ways=both_ways)).tolist() == expected


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 20), (12, 1000)])
def test_t5_buckets_rise_with_distance_and_stay_inside(both_ways: bool, buckets: int, furthest: int) -> None:
    spec = T5(buckets=buckets, furthest=furthest, both_ways=both_ways)
    back = bucket(torch.arange(0, -3000, -1), spec)
    size = buckets // 2 if both_ways else buckets
    assert (back.diff() >= 0).all() and back[0] == 0 and back[furthest:].eq(size - 1).all()
    ahead = bucket(torch.arange(1, 3000), spec)
    assert torch.equal(ahead, back[1:] + size if both_ways else torch.zeros_like(ahead))


def test_t5_bias_is_the_weight_of_the_bucket() -> None:
    part = place("t5", heads=3)
    q, k = at(20, 21), at(0, 5, 19, 20)
    scores = part(q, k)
    assert scores.shape == (1, 3, 2, 4)
    weight = part.state_dict()["weight"]
    for t, i in enumerate((20, 21)):
        for s, j in enumerate((0, 5, 19, 20)):
            number = int(bucket(torch.tensor(j - i), T5()))
            assert torch.equal(scores[0, :, t, s], weight[number])


# ALiBi


def published(heads: int) -> list[float]:
    """The authors' code: a geometric series for a power of two, else the two powers around."""
    if log2(heads).is_integer():
        ratio = 2 ** (-(2 ** -(log2(heads) - 3)))
        return [ratio ** (i + 1) for i in range(heads)]
    power = 2 ** int(log2(heads))
    return published(power) + published(2 * power)[0::2][: heads - power]


@pytest.mark.parametrize("heads", range(1, 21))
def test_alibi_slopes(heads: int) -> None:
    assert slopes(heads) == pytest.approx(published(heads), rel=1e-14)


def test_alibi_slopes_of_twelve_heads() -> None:
    expected = [2.0**-h for h in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    assert slopes(12) == pytest.approx(expected, rel=1e-15)


def test_alibi_is_minus_slope_times_distance() -> None:
    part = place("alibi", heads=12)
    scores = part(at(7, 9), at(0, 7, 9))
    distance = torch.tensor([[7, 0, 2], [9, 2, 0]])
    assert_close(scores[0], -torch.tensor(slopes(12), dtype=torch.float64)[:, None, None] * distance, **EXACT)


# rotary


def turned(x: Tensor, coords: Sequence[int], theta: float, pairs: str) -> Tensor:
    """(T, D): pair i times exp(i p theta^(-2i/D)), as complex numbers."""
    size = x.shape[-1]
    out = x.clone()
    for t, p in enumerate(coords):
        for i in range(size // 2):
            a, b = (i, i + size // 2) if pairs == "halves" else (2 * i, 2 * i + 1)
            angle = p * theta ** (-2 * i / size)
            z = complex(x[t, a], x[t, b]) * complex(cos(angle), sin(angle))
            out[t, a], out[t, b] = z.real, z.imag
    return out


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@pytest.mark.parametrize("channels", [None, 6])
def test_rotary_turns_complex_numbers(pairs: str, channels: int | None) -> None:
    part, coords = place("rotary", heads=2, head_size=10, theta=500.0, channels=channels, pairs=pairs), (0, 1, 7, 250)
    x = draw(1, 4, 2, 10)
    out, size = part(x, at(*coords)), channels or 10
    for h in range(2):
        assert_close(out[0, :, h, :size], turned(x[0, :, h, :size], coords, 500.0, pairs), **EXACT)
    assert torch.equal(out[..., size:], x[..., size:])  # the rest does not turn


def test_rotary_layouts_are_permutations_of_each_other() -> None:
    halves, neighbours = (place("rotary", heads=2, head_size=10, pairs=p) for p in ("halves", "neighbours"))
    order = torch.arange(10).view(2, 5).T.flatten()  # 0 5 1 6 2 7 …
    x, where = draw(1, 3, 2, 10), at(0, 4, 33)
    assert_close(neighbours(x[..., order], where), halves(x, where)[..., order], **EXACT)
    assert (neighbours(x, where) - halves(x, where)).abs().max() > 0.1


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
def test_a_rotary_score_depends_on_the_difference_alone(pairs: str) -> None:
    part = place("rotary", heads=1, head_size=8, pairs=pairs, channels=6)
    q, k = draw(1, 1, 1, 8), draw(1, 1, 1, 8, seed=1)

    def score(i: int, j: int) -> Tensor:
        return (part(q, at(i)) * part(k, at(j))).sum()

    for i, j in ((5, 2), (2, 5), (9, 9)):
        assert_close(score(i + 40, j + 40), score(i, j), rtol=0, atol=1e-11)
    assert abs(score(5, 2) - score(2, 5)) > 1e-3 and abs(score(5, 2) - score(5, 3)) > 1e-3
    assert_close(part(q, at(123)).norm(), q.norm())  # only turned


def test_rotary_is_computed_in_float32_at_least() -> None:
    part = place("rotary", heads=1, head_size=8)
    x, where = draw(1, 3, 1, 8).bfloat16(), at(1000, 3001, 4093)
    out, exact = part(x, where), part(x.double(), where)
    assert out.dtype == torch.bfloat16
    assert_close(out.double(), exact, rtol=2**-8, atol=2e-3)  # angles in bfloat16 would be off by radians


# Shaw


def reader(kind: str, **fields: Any) -> Layer:
    """A mixer alone, 12 wide, in float64, with weights that are not small."""
    mixer = from_dict(Mixer, {"kind": kind, **fields}).build(Site("mixer", 12, sources=frozenset({"source"})))
    fill_all(mixer.double(), 0)
    with torch.no_grad():
        for number, weight in enumerate(mixer.parameters()):
            weight.copy_(0.5 * draw(*weight.shape, seed=number))
    return mixer


def shaw_by_hand(
    mixer: Layer, x: Tensor, y: Tensor, ahead: Tensor, seen: Tensor, scale: float, furthest: int
) -> Tensor:
    """e_ij = scale q_i . (k_j + a^K_r), z_i = sum_j w_ij (v_j + a^V_r), a pair's vectors written out. Head size 5."""
    named = dict(mixer.named_parameters())
    q, k, v = ((z @ named[f"{n}.weight"].T).unflatten(-1, (-1, 5)) for n, z in (("q", x), ("k", y), ("v", y)))
    k, v = (z.repeat_interleave(q.shape[2] // z.shape[2], 2) for z in (k, v))
    r = ahead.clip(-furthest, furthest) + furthest  # (B, T, S)
    keys = k[:, None] + named["position.k"][r][:, :, :, None]  # (B, T, S, H, D)
    values = v[:, None] + (named["position.v"][r][:, :, :, None] if "position.v" in named else 0)
    scores = torch.einsum("bthd,btshd->bhts", q, keys) * scale
    weights = scores.masked_fill(~seen[:, None], -1e300).softmax(-1)
    return torch.einsum("bhts,btshd->bthd", weights, values).flatten(-2) @ named["o.weight"].T


SHAW_COORDS = torch.tensor([[0, 1, 2, 5, 6, 40, 41], [3, 4, 6, 6, 7, 8, 11]])  # gaps, and two tokens in one place
SHAW_TIMES = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [0, -1, 1, 2, 3, 4, -1]])


@pytest.mark.parametrize("values", [True, False])
@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"kind": "softmax", "heads": 4, "kv_heads": 2}, 5**-0.5),
        ({"kind": "softmax", "heads": 3, "pattern": "full", "scale": 0.7}, 0.7),
        ({"kind": "cross", "heads": 3, "kv_heads": 1}, 5**-0.5),
    ],
)
def test_shaw_is_its_equation(fields: dict[str, Any], scale: float, values: bool) -> None:
    """Outputs, and gradients by all weights and by the stream."""
    mixer = reader(**fields, head_size=5, position={"kind": "shaw", "furthest": 3, "values": values})
    where = Where(SHAW_TIMES, SHAW_COORDS[..., None], {})
    x, y = draw(2, 7, 12).requires_grad_(), draw(2, 4, 12, seed=1).requires_grad_()
    read, there = (x, where) if fields["kind"] == "softmax" else (y, Where(SHAW_TIMES[:, :4], where.coords[:, 1:5], {}))
    ahead = there.coords[:, None, :, 0] - where.coords[:, :, None, 0]
    seen = there.real[:, None].expand_as(ahead)
    if fields["kind"] == "softmax" and "pattern" not in fields:
        seen = seen & (there.time[:, None] <= where.time[:, :, None])
    out, _ = mixer(x, Context(where, {"source": Source(y, there)}))
    expected = shaw_by_hand(mixer, x, read, ahead, seen, scale, 3)
    assert_close(out[where.real], expected[where.real], rtol=1e-10, atol=1e-10)
    losses = ((z * draw(2, 7, 12, seed=2))[where.real].sum() for z in (out, expected))
    grads = (torch.autograd.grad(loss, [*mixer.parameters(), x]) for loss in losses)
    for ours, theirs in zip(*grads, strict=True):
        assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


class Largest(TorchDispatchMode):
    """Counts the elements of the largest tensor that is made, in the backward pass too."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(made) if isinstance(x, Tensor))])
        return made


@pytest.mark.parametrize("values", [True, False])
def test_shaw_makes_no_vector_of_a_pair(values: bool) -> None:
    """The scores (H, T, T) are the largest tensor there is, in both passes; (T, T, D) would be more."""
    mixer = reader("softmax", heads=2, head_size=5, position={"kind": "shaw", "furthest": 3, "values": values})
    with Largest() as largest:
        mixer(draw(1, 60, 12), Context.start(1, 60))[0].square().sum().backward()
    assert largest.numel == 2 * 60 * 60


@torch.no_grad()
def test_shaw_adds_the_value_vector_of_the_weights_that_a_tape_puts_in() -> None:
    """Each token reads the one before it alone: v_(i-1) + a^V_(-1)."""
    mixer = reader("softmax", heads=2, head_size=5, pattern="full", position={"kind": "shaw", "furthest": 3})
    x, before = draw(1, 6, 12), torch.eye(6, dtype=torch.float64).roll(1, 1).T.expand(1, 2, 6, 6)
    tape = Tape(record=["mixer.out"], change={"mixer.weights": lambda weights: before})
    mixer(x, Context(Where.start(1, 6), tape=tape))
    values = (x @ mixer.get_parameter("v.weight").T).unflatten(-1, (2, 5))
    expected = values[:, :-1] + mixer.get_parameter("position.v")[3 - 1]
    assert_close(tape["mixer.out"][:, 1:], expected, **EXACT)


def test_a_causal_mixer_uses_half_of_shaws_vectors() -> None:
    mixer = reader("softmax", heads=2, head_size=5, position={"kind": "shaw", "furthest": 3})
    mixer(draw(1, 9, 12), Context.start(1, 9))[0].square().sum().backward()
    for name in ("position.k", "position.v"):
        grad = mixer.get_parameter(name).grad
        assert grad is not None and grad[:4].abs().amin() > 0 and not grad[4:].any()


# sinusoidal, learned


def test_sinusoids_are_the_formula() -> None:
    part, coords = place("sinusoidal", width=10, theta=100.0), (0, 3, 41)
    out = part(torch.zeros(1, 3, 10, dtype=torch.float64), at(*coords))[0]
    for t, p in enumerate(coords):
        for i in range(5):
            angle = p / 100.0 ** (2 * i / 10)
            assert out[t, 2 * i].item() == pytest.approx(sin(angle), abs=1e-12)
            assert out[t, 2 * i + 1].item() == pytest.approx(cos(angle), abs=1e-12)
    x = draw(1, 3, 10)
    assert_close(part(x, at(*coords)), x + out, **EXACT)


def test_learned_positions_start_at_the_row_first() -> None:
    part = place("learned", width=6, length=5, first=2)
    weight, x = part.state_dict()["weight"], draw(1, 3, 6)
    assert weight.shape == (7, 6)
    assert_close(part(x, at(0, 4, 1)), x + weight[[2, 6, 3]], **EXACT)


# in models


def body(**mixer: object) -> dict:
    """Two blocks."""
    block = {"kind": "block", "mixer": {"kind": "softmax", "heads": 3, **mixer}}
    return {"kind": "stack", "blocks": [block, {**block}]}


def decoder(body: dict, position: object = "none", width: int = 18) -> dict:
    """`position`: the model's own."""
    return {"kind": "decoder", "width": width, "vocabulary": 13, "position": position, "body": body}


def build(tree: dict) -> Model:
    """In float64, with weights that are not small."""
    built = from_dict(AnyModel, tree).build(dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in built.parameters():
            weight.normal_(std=0.4, generator=generator)
    return built


IDS = torch.tensor([[3, 12, 0, 7, 7, 1, 5]])


@torch.no_grad()
def test_an_encoder_without_positions_is_permutation_equivariant() -> None:
    order = torch.tensor([4, 0, 6, 2, 5, 3, 1])
    nope = build({**decoder(body(pattern="full")), "kind": "encoder", "head": None})
    assert_close(nope(IDS[:, order]), nope(IDS)[:, order], **EXACT)
    for tree in (decoder(body(pattern="full"), "sinusoidal"), decoder(body(pattern="full", position="rotary"))):
        told = build(tree)
        assert (told(IDS[:, order]) - told(IDS)[:, order]).abs().max() > 1e-3


@torch.no_grad()
def test_a_decoder_without_positions_can_count() -> None:
    """The first token depends on nothing else; later ones differ though every token is the same."""
    nope = build(decoder(body()))
    assert_close(nope(IDS)[:, :1], nope(IDS[:, :1]), **EXACT)
    assert (nope(IDS)[:, 2:] - nope(IDS[:, [1, 0, 2, 3, 4, 5, 6]])[:, 2:]).abs().max() > 1e-6  # the second block counts


@pytest.mark.parametrize("inside", ["rotary", "alibi", "t5", "shaw"])
@torch.no_grad()
def test_relative_schemes_see_differences_of_coordinates_alone(inside: str) -> None:
    one = build(decoder(body(position=inside)))
    coords = torch.tensor([0, 1, 3, 4, 9, 11, 12])[None, :, None]
    assert_close(one(IDS, coords=coords + 50), one(IDS, coords=coords), rtol=0, atol=1e-10)
    assert (one(IDS, coords=coords) - one(IDS)).abs().max() > 1e-4  # the gaps are seen


@torch.no_grad()
def test_positions_on_embeddings_are_added_once() -> None:
    one = build(decoder(body(), {"kind": "learned", "length": 9, "first": 1}))
    plain = build(decoder(body()))
    plain.load_state_dict({name: value for name, value in one.state_dict().items() if name != "position.weight"})
    ids = torch.tensor([[4]])
    plain.get_parameter("embedding.weight")[4] += one.get_parameter("position.weight")[1]
    plain_logits, logits = plain(ids), one(ids)
    others = [v for v in range(13) if v != 4]  # the head is tied: the changed row is read there too
    assert_close(logits[..., others], plain_logits[..., others], **EXACT)


# refusals


def message_of(tree: dict) -> str:
    with pytest.raises(ValueError) as caught:
        from_dict(AnyModel, tree).build()
    return str(caught.value)


@pytest.mark.parametrize("kind", ["alibi", "t5", "rotary", "shaw"])
def test_schemes_of_mixers_are_refused_at_the_model(kind: str) -> None:
    message = message_of(decoder(body(), kind))
    assert message.startswith("position: ") and "in the mixers" in message


@pytest.mark.parametrize("position", ["sinusoidal", {"kind": "learned", "length": 8}])
def test_schemes_of_embeddings_are_refused_in_a_mixer(position: object) -> None:
    message = message_of(decoder(body(position=position)))
    assert message.startswith("body.blocks.0.mixer.position: acts on embeddings")
    assert "on queries and keys or on scores" in message and "model's own position" in message


def test_rotary_is_refused_in_cross_attention() -> None:
    """A key's turn would mix the two sides' clocks."""
    reading = body()
    reading["blocks"][0]["cross"] = {"kind": "cross", "heads": 3, "position": "rotary"}
    sides = {"encoder": body(), "decoder": reading}
    message = message_of({"kind": "encoder_decoder", "width": 18, "vocabulary": 13, **sides})
    assert message.startswith("decoder.blocks.0.cross.position: acts on queries and keys")
    assert "on scores" in message


@pytest.mark.parametrize(
    ("position", "mixer", "words"),
    [
        ({"kind": "rotary", "channels": 3}, {}, ["rotary channels (3)", "even", "head_size (6)"]),
        ({"kind": "rotary", "channels": 8}, {}, ["rotary channels (8)", "at most head_size (6)"]),
        ("rotary", {"head_size": 5}, ["rotary channels (5)", "even"]),
        ({"kind": "t5", "buckets": 33}, {}, ["buckets (33)", "multiple of 2"]),
        ({"kind": "t5", "buckets": 30, "both_ways": True}, {}, ["buckets (30)", "multiple of 4"]),
        ({"kind": "t5", "furthest": 16}, {}, ["furthest"]),
    ],
)
def test_sizes_that_cannot_work_are_refused(position: object, mixer: dict, words: list[str]) -> None:
    message = message_of(decoder(body(position=position, **mixer)))
    assert message.startswith("body.blocks.0.mixer.position: ")
    assert all(word in message for word in words), message


def test_sinusoids_need_an_even_width() -> None:
    message = message_of(decoder(body(), "sinusoidal", width=15))
    assert message.startswith("position: ") and "width (15) must be even" in message


def test_linear_attention_has_no_position() -> None:
    message = message_of(decoder(body(kind="linear", position="rotary")))
    assert "position" in message and "heads" in message  # what came, and what there is


@pytest.mark.parametrize("scheme", ["rotary", "alibi", "t5", "shaw"])
def test_one_coordinate_is_refused_where_tokens_have_two(scheme: str) -> None:
    block = {"kind": "block", "mixer": {"kind": "softmax", "heads": 2, "position": scheme}}
    tree = {"kind": "decoder", "width": 8, "vocabulary": 5, "rank": 2, "body": {"kind": "stack", "blocks": [block]}}
    with pytest.raises(ValueError, match="reads one coordinate; the model's tokens have 2"):
        from_dict(AnyModel, tree).build()
