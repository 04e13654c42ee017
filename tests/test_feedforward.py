"""Feed-forwards against plain formulas, number by number; what experts do, cost and balance."""

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anyformer.core.build import fill_all
from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer, Stateless
from anyformer.core.roles import AnyModel, FeedForward
from anyformer.core.spec import LayerSpec, Site, from_dict, spec
from anyformer.core.state import Past
from anyformer.core.tape import Tape
from anyformer.feedforward.activations import FUNCTIONS, Activation
from anyformer.feedforward.experts import Experts

C, T = 6, 9
SAME = {"rtol": 0.0, "atol": 1e-12}
ACTIVATIONS = {
    "relu": lambda a: max(a, 0.0),
    "relu2": lambda a: max(a, 0.0) ** 2,
    "gelu": lambda a: a * 0.5 * (1 + math.erf(a / math.sqrt(2))),
    "gelu_tanh": lambda a: 0.5 * a * (1 + math.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))),
    "quick_gelu": lambda a: a / (1 + math.exp(-1.702 * a)),
    "silu": lambda a: a / (1 + math.exp(-a)),
    "tanh": math.tanh,
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "identity": lambda a: a,
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(kind: str, **fields: Any) -> Layer:
    layer = from_dict(FeedForward, {"kind": kind, **fields}).build(Site("ff", C)).double()
    fill_all(layer, 0)
    with torch.no_grad():
        for number, weight in enumerate(layer.parameters()):
            weight.copy_(0.5 * draw(*weight.shape, seed=number + 3))
    return layer.eval()


def say(layer: Layer, x: Tensor, where: Where | None = None, tape: Tape | None = None) -> Tensor:
    return layer(x, Context(where or Where.start(*x.shape[:2]), tape=tape))[0]


def applied(name: str, x: Tensor) -> Tensor:
    return torch.tensor([ACTIVATIONS[name](a) for a in x.flatten().tolist()], dtype=x.dtype).view_as(x)


def affine(layer: Layer, name: str, x: Tensor) -> Tensor:
    """W x + b, row by row."""
    w = dict(layer.named_parameters())
    return torch.stack([w[f"{name}.weight"] @ e for e in x.flatten(0, -2)]).unflatten(0, x.shape[:-1]) + w.get(
        f"{name}.bias", 0
    )


def test_every_activation_is_tried() -> None:
    assert list(FUNCTIONS) == list(get_args(Activation))
    assert set(FUNCTIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp(activation: str, bias: bool) -> None:
    layer, x = build("mlp", hidden=7, activation=activation, bias=bias), draw(2, T, C)
    want = affine(layer, "down", applied(activation, affine(layer, "up", x)))
    assert_close(say(layer, x), want, **SAME)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated(activation: str, bias: bool) -> None:
    """GLU (sigmoid), ReGLU, GEGLU, SwiGLU and the bilinear form (identity), Shazeer 2020."""
    layer, x = build("gated", hidden=7, activation=activation, bias=bias), draw(2, T, C)
    hidden = applied(activation, affine(layer, "gate", x)) * affine(layer, "up", x)
    assert_close(say(layer, x), affine(layer, "down", hidden), **SAME)


@pytest.mark.parametrize("kind", ["mlp", "gated"])
def test_dropout_is_of_what_is_between(kind: str) -> None:
    layer, plain, x = build(kind, hidden=7, dropout=0.4).train(), build(kind, hidden=7), draw(2, T, C)
    tape = Tape(["ff.hidden"])
    say(plain, x, tape=tape)
    torch.manual_seed(5)
    mask = torch.nn.functional.dropout(torch.ones_like(tape["ff.hidden"]), 0.4)
    torch.manual_seed(5)
    assert_close(say(layer, x), affine(plain, "down", tape["ff.hidden"] * mask), **SAME)
    assert torch.equal(say(layer.eval(), x), say(plain, x))


# experts

EXPERT = {"kind": "gated", "hidden": 5, "activation": "gelu", "bias": True}
HOLES = Where.start(3, T)
HOLES = Where(
    torch.stack([HOLES.time[0], HOLES.time[1].masked_fill(HOLES.time[1] % 2 == 0, -1), HOLES.time[2] * 0 - 1]),
    HOLES.coords,
    {},
)  # whole, every other token, padding alone


def experts(**fields: Any) -> Layer:
    return build("experts", **{"count": 5, "top": 2, "expert": EXPERT, **fields})


def by_hand(layer: Layer, x: Tensor, where: Where, top: int, renormalise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Token by token: outputs (0 for padding), how often each was chosen, and all logits of real tokens."""
    y, router, logits = torch.zeros_like(x), layer.get_parameter("router.weight"), []
    counts = torch.zeros(len(router), dtype=x.dtype)
    for row, t in where.real.nonzero().tolist():
        logits.append(router @ x[row, t])
        p = logits[-1].exp() / logits[-1].exp().sum()
        best = sorted(range(len(p)), key=lambda e: -p[e].item())[:top]
        whole = sum(p[e] for e in best) if renormalise else 1.0
        for e in best:
            expert: Any = layer.get_submodule(f"expert.{e}")
            hidden = applied("gelu", affine(expert, "gate", x[row, t][None])) * affine(expert, "up", x[row, t][None])
            y[row, t] += p[e] / whole * affine(expert, "down", hidden)[0]
            counts[e] += 1
    return y, counts, torch.stack(logits)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("top", [1, 2, 5])
def test_each_token_is_the_weighted_sum_of_its_best(top: int, renormalise: bool) -> None:
    layer, x = experts(top=top, renormalise=renormalise), draw(3, T, C)
    want, _, _ = by_hand(layer, x, HOLES, top, renormalise)
    assert_close(say(layer, x, HOLES), want, **SAME)


def test_weights_that_add_up_to_one_are_mixtrals_softmax_over_the_chosen() -> None:
    """One expert: renormalised it is the expert itself, otherwise its share of the softmax over all."""
    x = draw(1, T, C)
    for renormalise in (True, False):
        layer = experts(top=1, renormalise=renormalise)
        p, best = (x[0] @ layer.get_parameter("router.weight").T).softmax(-1).max(-1)
        own = torch.stack([say(layer.get_submodule(f"expert.{e}"), x[:, t : t + 1])[0, 0] for t, e in enumerate(best)])
        assert_close(say(layer, x)[0], own if renormalise else own * p[:, None], **SAME)


@pytest.mark.parametrize("top", [1, 3])
def test_losses_beside_the_main_one(top: int) -> None:
    layer, x, tape = experts(top=top, balance=0.3, z=0.07), draw(3, T, C), Tape()
    say(layer, x, HOLES, tape)
    _, counts, logits = by_hand(layer, x, HOLES, top, True)
    share, mean = counts / counts.sum(), logits.softmax(-1).mean(0)
    assert set(tape.losses) == {("ff.balance", ()), ("ff.z", ())}
    assert_close(tape.losses["ff.balance", ()], 0.3 * 5 * (share * mean).sum(), **SAME)
    assert_close(tape.losses["ff.z", ()], 0.07 * logits.exp().sum(-1).log().square().mean(), **SAME)


def test_padding_costs_and_balances_nothing() -> None:
    """Whatever stands in it; and where there is nothing else, the losses are 0."""
    layer, x = experts(z=0.1), draw(3, T, C)
    other = torch.where(HOLES.real[..., None], x, 1e3 * draw(3, T, C, seed=8))
    tapes = Tape(), Tape(), Tape()
    outs = [say(layer, given, HOLES, tape) for given, tape in zip((x, other), tapes, strict=False)]
    assert_close(*outs, **SAME)
    assert tapes[0].losses == tapes[1].losses
    blank = Where(HOLES.time * 0 - 1, HOLES.coords, {})
    assert not say(layer, x, blank, tapes[2]).any()
    assert [loss.item() for loss in tapes[2].losses.values()] == [0.0, 0.0]


def test_an_even_router_has_balance_one() -> None:
    """E sum s_e p_e: with all p_e = 1/E it is 1, whatever is chosen; all on one expert, it tends to E."""
    layer, x, tape = experts(balance=1.0, top=1), draw(2, T, C), Tape()
    with torch.no_grad():
        layer.get_parameter("router.weight").zero_()
        say(layer, x, tape=tape)
        assert_close(tape.losses["ff.balance", ()].item(), 1.0)
        layer.get_parameter("router.weight")[3] = 1e3
        say(layer, x.abs(), tape=tape)
    assert_close(tape.losses["ff.balance", ()].item(), 5.0)


def test_losses_that_count_nothing_are_not_made() -> None:
    tape = Tape()
    say(experts(balance=0.0), draw(1, T, C), tape=tape)
    assert not tape.losses


def test_balance_trains_the_router_alone() -> None:
    layer, tape = experts(balance=1.0), Tape()
    say(layer, draw(2, T, C), tape=tape)
    named = dict(layer.named_parameters())
    grads = torch.autograd.grad(tape.losses["ff.balance", ()], list(named.values()), allow_unused=True)
    trained = [name for name, grad in zip(named, grads, strict=True) if grad is not None]
    assert trained == ["router.weight"]


@pytest.mark.parametrize("length", [1, T])
def test_no_expert_reads_what_it_was_not_chosen_for(length: int) -> None:
    """The work is T K tokens, not T E; but in training every weight has a gradient."""
    layer, x, where = experts(count=8, top=2), draw(1, length, C), Where.start(1, length)
    _, counts, _ = by_hand(layer, x, where, 2, True)
    for training in (False, True):
        tape = Tape(["ff.expert.*.hidden"])
        out = say(layer.train(training), x, where, tape)
        read = {int(name.split(".")[2]): value.shape[1] for (name, _), value in tape.values.items()}
        assert read == {e: count for e, count in enumerate(counts.tolist()) if count or training}
    grads = torch.autograd.grad(out.sum(), list(layer.parameters()))
    assert all(grad.isfinite().all() for grad in grads)


def test_experts_of_experts() -> None:
    """An inner mixture sees real tokens alone, so that its losses are those of its own tokens."""
    inner = {"kind": "experts", "count": 3, "top": 1, "expert": EXPERT, "balance": 1.0}
    layer, x, tape = experts(count=2, top=1, expert=inner), draw(3, T, C), Tape()
    out = say(layer, x, HOLES, tape)
    want = torch.zeros_like(x)
    best = (x @ layer.get_parameter("router.weight").T).argmax(-1)
    for row, t in HOLES.real.nonzero().tolist():
        want[row, t] = say(layer.get_submodule(f"expert.{best[row, t]}"), x[row : row + 1, t : t + 1])[0, 0]
    assert_close(out, want, **SAME)
    assert {name for name, _ in tape.losses} == {"ff.balance", "ff.expert.0.balance", "ff.expert.1.balance"}


@spec
class Shift(LayerSpec):
    """A feed-forward that remembers."""

    def build(self, at: Site) -> "Remembers":
        return Remembers(at)


class Remembers(Layer):
    def init_state(self, room: Any) -> Past: ...
    def rewind(self, past: Past, until: Tensor) -> Past: ...
    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        return x, state


def test_what_experts_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"ff: top \(6\) must be at most count \(5\)"):
        experts(top=6)
    with pytest.raises(ValueError, match=r"ff\.expert: keeps a past; an expert has to treat every token alone"):
        Experts(expert=Shift(), count=2).build(Site("ff", C))


def test_a_model_of_experts_learns_with_autocast_and_checkpoints() -> None:
    ff = {"kind": "experts", "count": 4, "expert": EXPERT}
    body = {"kind": "stack", "blocks": [{"kind": "block", "mixer": {"kind": "softmax", "heads": 2}, "ff": ff}]}
    model = from_dict(AnyModel, {"kind": "decoder", "width": C, "vocabulary": 11, "body": body}).build()
    ids, tape = torch.arange(2 * T).view(2, T) % 11, Tape()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(ids, ids, tape=tape, checkpoint=True)
    (loss + sum(tape.losses.values())).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    layer = model.get_submodule("body.blocks.0.ff")
    assert isinstance(layer, Stateless)
