"""Norms against their formulas, and what follows from them: invariances, gradients, precision."""

import pytest
import torch
from oracles import formal
from torch import Tensor
from torch.testing import assert_close

from anyformer.core.build import fill_all
from anyformer.core.layer import Part
from anyformer.core.roles import Norm
from anyformer.core.spec import Site, from_dict

WIDTH = 10
SAME = {"rtol": 0.0, "atol": 1e-12}


def norm(kind: str, redrawn: bool = True, **options: object) -> Part:
    part = from_dict(Norm, {"kind": kind, **options}).build(Site("norm", WIDTH)).double()
    fill_all(part, 0)
    if redrawn:
        with torch.no_grad():
            for i, weight in enumerate(part.parameters()):
                weight.copy_(draw(*weight.shape, seed=40 + i))
    return part


def draw(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale + 0.7


def by_token(function, x: Tensor) -> Tensor:
    return torch.stack([function(e) for e in x.flatten(0, -2)]).view_as(x)


@pytest.mark.parametrize(("gain", "bias"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("eps", [1e-12, 0.3])
def test_layer_norm_is_algorithm_6(gain: bool, bias: bool, eps: float) -> None:
    part, x = norm("layer", gain=gain, bias=bias, eps=eps), draw(2, 3, WIDTH)
    named = dict(part.named_parameters())
    assert set(named) == {name for name, learned in (("weight", gain), ("bias", bias)) if learned}
    theirs = formal.Norm(named.get("weight", torch.ones(WIDTH)), named.get("bias", torch.zeros(WIDTH)), eps)
    assert_close(part(x), by_token(lambda e: formal.layer_norm(e, theirs), x), **SAME)


@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("eps", [1e-12, 0.3])
def test_rms_norm_is_algorithm_6_without_mean_and_shift(gain: bool, eps: float) -> None:
    part, x = norm("rms", gain=gain, eps=eps), draw(2, 3, WIDTH)
    named = dict(part.named_parameters())
    assert set(named) == ({"weight"} if gain else set())
    theirs = formal.Norm(named.get("weight", torch.ones(WIDTH)), torch.zeros(WIDTH), eps)
    assert_close(part(x), by_token(lambda e: formal.rms_norm(e, theirs), x), **SAME)


@pytest.mark.parametrize("eps", [1e-12, 4.0])
def test_scale_norm_is_one_length_for_all(eps: float) -> None:
    """Some of these vectors are shorter than 4: their length counts as 4."""
    part, x = norm("scale", eps=eps), draw(2, 3, WIDTH) * torch.tensor([[1.0], [0.1], [0.02]])
    (g,) = part.get_parameter("weight").tolist()
    lengths = [sum(number**2 for number in e) ** 0.5 for e in x.flatten(0, 1).tolist()]
    assert min(lengths) < 4 < max(lengths)
    want = [g * e / max(length, eps) for e, length in zip(x.flatten(0, 1), lengths, strict=True)]
    assert_close(part(x), torch.stack(want).view_as(x), **SAME)


def test_scale_norm_is_rms_norm_with_one_gain() -> None:
    """g x / |x| is (g / sqrt C) x / rms x: it begins as RMSNorm does, and stays on one sphere."""
    x = draw(4, WIDTH)
    assert_close(norm("scale", False)(x), norm("rms", False, eps=1e-30)(x), **SAME)
    part = norm("scale")
    assert_close(part(x).norm(dim=-1), part.get_parameter("weight").abs().expand(4), **SAME)


def test_layer_norm_without_mean_and_shift_is_rms_norm() -> None:
    """Phuong & Hutter 2022, algorithm 6: with m = beta = 0 it is RMSNorm."""
    layer, rms, x = norm("layer", False, eps=0.1), norm("rms", False, eps=0.1), draw(2, 3, WIDTH)
    centred = x - x.mean(-1, keepdim=True)
    assert_close(rms(centred), layer(centred), **SAME)
    assert_close(rms(centred), layer(x), **SAME)
    assert (rms(x) - layer(x)).abs().max() > 0.1


def test_they_start_as_the_plain_formula() -> None:
    x = draw(4, WIDTH)
    assert_close(norm("layer", False)(x).var(-1, correction=0), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-4)
    assert_close(norm("layer", False)(x).mean(-1), torch.zeros(4, dtype=torch.float64), **SAME)
    assert_close(norm("rms", False)(x).square().mean(-1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-4)


def test_what_they_do_not_see() -> None:
    """Neither sees a scale; only LayerNorm is blind to a shift."""
    layer, rms, x = norm("layer", eps=1e-20), norm("rms", eps=1e-20), draw(4, WIDTH)
    assert_close(layer(x * 37), layer(x), **SAME)
    assert_close(rms(x * 37), rms(x), **SAME)
    assert_close(norm("scale")(x * 37), norm("scale")(x), **SAME)
    assert_close(layer(x + 5), layer(x), **SAME)
    assert (rms(x + 5) - rms(x)).abs().max() > 0.1


def test_no_norm_is_the_identity() -> None:
    x = draw(2, WIDTH)
    part = norm("no_norm")
    assert part(x) is x and not list(part.parameters())


@pytest.mark.parametrize("kind", ["layer", "rms", "scale"])
def test_gradients_are_orthogonal_to_what_is_not_seen(kind: str) -> None:
    """Scaling x changes nothing, so the gradient has no part along x; for LayerNorm none along (1, …, 1) either."""
    part, x = norm(kind, eps=1e-20), draw(5, WIDTH).requires_grad_()
    (part(x) * draw(5, WIDTH, seed=9)).sum().backward()
    grad = x.grad
    assert grad is not None and grad.norm() > 0.1
    assert_close((grad * x).sum(-1), torch.zeros(5, dtype=torch.float64), **SAME)
    if kind == "layer":
        assert_close(grad.sum(-1), torch.zeros(5, dtype=torch.float64), **SAME)


@pytest.mark.parametrize("kind", ["layer", "rms", "scale"])
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    part = norm(kind)
    assert torch.autograd.gradcheck(lambda x: part(x), draw(2, WIDTH).requires_grad_())


@pytest.mark.parametrize("kind", ["layer", "rms", "scale"])
def test_sums_are_made_in_float32_at_least(kind: str) -> None:
    """Statistics in bfloat16 would lose the mean of a wide vector; only the result is rounded."""
    width = 1000
    spec = from_dict(Norm, {"kind": kind})
    exact, half = (spec.build(Site("norm", width)).to(dtype) for dtype in (torch.float64, torch.bfloat16))
    fill_all(exact, 0), fill_all(half, 0)
    x = (draw(3, width, scale=0.5) + 8).bfloat16()
    out = half(x)
    assert out.dtype == torch.bfloat16
    assert_close(out.double(), exact(x.double()), rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("kind", ["layer", "rms", "scale"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_constant_and_zero_vectors_are_finite(kind: str, dtype: torch.dtype) -> None:
    """The paper's algorithm 6 divides 0 by 0 here; the epsilon is inside the root."""
    part = norm(kind).to(dtype)
    x = torch.stack([torch.zeros(WIDTH), torch.full((WIDTH,), 3.0)]).to(dtype).requires_grad_()
    out = part(x)
    out.float().sum().backward()
    assert out.isfinite().all() and x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["layer", "rms", "scale"])
def test_an_epsilon_must_be_above_zero(kind: str) -> None:
    with pytest.raises(ValueError, match="eps"):
        from_dict(Norm, {"kind": kind, "eps": 0.0})
