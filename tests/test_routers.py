"""Routers: published mixtures number by number, what groups and the balancing bias do, what is refused."""

from typing import Any

import pytest
import torch
from oracles.published import config, exact, modeling, redrawn
from torch import Tensor, nn
from torch.testing import assert_close

from anyformer.core.build import fill_all
from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer
from anyformer.core.roles import AnyLayer, AnyModel, FeedForward
from anyformer.core.spec import LayerSpec, Site, from_dict, spec
from anyformer.core.tape import Tape
from anyformer.feedforward.experts import ExpertLayer, Experts
from anyformer.feedforward.routers.sigmoid import SigmoidRouterPart

C, F, E, T = 10, 7, 12, 23
SAME = {"rtol": 0.0, "atol": 1e-12}
GATED = ("gate", "up", "down")
SIGMOID = {"kind": "sigmoid", "groups": 4, "best": 2}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(weights: dict[str, Tensor] | None = None, **fields: Any) -> ExpertLayer:
    """Experts, with these weights or large ones, in float64."""
    given = {"kind": "experts", "expert": {"kind": "gated", "hidden": F}, "count": E, "top": 3, **fields}
    layer = from_dict(FeedForward, given).build(Site("ff", C)).double()
    fill_all(layer, 0)
    if weights is None:
        redrawn(layer)
    else:
        layer.load_state_dict(weights)  # strict: a tensor that either side lacks is an error
    return layer.eval()


def say(layer: Layer, x: Tensor, where: Where | None = None, tape: Tape | None = None) -> Tensor:
    return layer(x, Context(where or Where.start(*x.shape[:2]), tape=tape))[0]


# Published mixtures. transformers holds all experts in one tensor, gates above ups; files have them one by one.


def apart(experts: nn.Module) -> dict[str, Tensor]:
    """Fused weights (E, 2F, C) and (E, C, F) under the experts' own names."""
    named = {}
    for index, (both, down) in enumerate(zip(experts.gate_up_proj, experts.down_proj, strict=True)):
        gate, up = both.chunk(2)
        named |= {f"expert.{index}.{name}.weight": w for name, w in (("gate", gate), ("up", up), ("down", down))}
    return named


def answers(theirs: nn.Module, x: Tensor) -> Tensor:
    with exact(), torch.no_grad():
        out = theirs(x.clone())
    return out[0] if isinstance(out, tuple) else out


def test_mixtral() -> None:
    sizes = {"hidden_size": C, "intermediate_size": F, "num_local_experts": E, "num_experts_per_tok": 3}
    theirs, x = redrawn(modeling("mixtral").MixtralSparseMoeBlock(config("MixtralConfig", **sizes))), draw(2, T, C)
    ours = build({"router.weight": theirs.gate.weight, **apart(theirs.experts)})
    assert_close(say(ours, x), answers(theirs, x), **SAME)


@pytest.mark.parametrize("renormalise", [True, False])
def test_qwen3(renormalise: bool) -> None:
    sizes = {"hidden_size": C, "moe_intermediate_size": F, "num_experts": E, "num_experts_per_tok": 3}
    given = config("Qwen3MoeConfig", norm_topk_prob=renormalise, **sizes)
    theirs, x = redrawn(modeling("qwen3_moe").Qwen3MoeSparseMoeBlock(given)), draw(2, T, C)
    ours = build({"router.weight": theirs.gate.weight, **apart(theirs.experts)}, renormalise=renormalise)
    assert_close(say(ours, x), answers(theirs, x), **SAME)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(("groups", "best"), [(1, 1), (4, 2), (3, 3), (6, 2)])
def test_deepseek(groups: int, best: int, renormalise: bool) -> None:
    sizes = {"hidden_size": C, "moe_intermediate_size": F, "n_routed_experts": E, "num_experts_per_tok": 3}
    more = {"n_group": groups, "topk_group": best, "routed_scaling_factor": 2.3, "n_shared_experts": 2}
    given = config("DeepseekV3Config", norm_topk_prob=renormalise, **sizes, **more)
    theirs, x = redrawn(modeling("deepseek_v3").DeepseekV3MoE(given)), draw(2, T, C)
    shared = {f"shared.{name}.weight": getattr(theirs.shared_experts, f"{name}_proj").weight for name in GATED}
    gate = {"router.weight": theirs.gate.weight, "router.correction": theirs.gate.e_score_correction_bias}
    ours = build(
        {**gate, **shared, **apart(theirs.experts)},
        router={"kind": "sigmoid", "groups": groups, "best": best},
        renormalise=renormalise,
        scale=2.3,
        shared={"kind": "gated", "hidden": 2 * F},
    )
    assert_close(say(ours, x), answers(theirs, x), **SAME)


def test_gpt_oss() -> None:
    """Gates and ups come in turn, as columns; every map has a bias; both bounds are met."""
    sizes = {"hidden_size": C, "intermediate_size": F, "num_local_experts": E, "num_experts_per_tok": 3}
    given = config("GptOssConfig", swiglu_limit=1.5, swiglu_alpha=1.3, **sizes)
    theirs, x = redrawn(modeling("gpt_oss").GptOssMLP(given)), draw(2, T, C)
    fused, named = theirs.experts, {f"router.{name}": tensor for name, tensor in theirs.router.named_parameters()}
    for index in range(E):
        for offset, name in enumerate(("gate", "up")):
            named[f"expert.{index}.{name}.weight"] = fused.gate_up_proj[index, :, offset::2].T
            named[f"expert.{index}.{name}.bias"] = fused.gate_up_proj_bias[index, offset::2]
        named[f"expert.{index}.down.weight"] = fused.down_proj[index].T
        named[f"expert.{index}.down.bias"] = fused.down_proj_bias[index]
    clamped = {"kind": "clamped", "hidden": F, "limit": 1.5, "slope": 1.3}
    ours = build(named, expert=clamped, router={"kind": "softmax", "bias": True})
    assert_close(say(ours, x), answers(theirs, x), **SAME)
    expert: Any = ours.one(0)
    gate, up = expert.gate(x), expert.up(x)
    assert gate.amax() > 1.5 and gate.amin() < -1.5 and up.amax() > 1.5 and up.amin() < -1.5


# The bias that only chooses


def routed(layer: ExpertLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of all experts and the numbers of the chosen, by plain loops over a sigmoid router's weights."""
    router: Any = layer.router
    scores = (x @ router.weight.T).sigmoid()
    size = E // router.groups
    chosen = []
    for row in (scores + router.correction).flatten(0, 1).tolist():
        worth = [sum(sorted(row[g * size : (g + 1) * size])[-2:]) for g in range(router.groups)]
        best = sorted(range(router.groups), key=lambda g: -worth[g])[: router.best]
        open_to = [e for e in range(E) if e // size in best]
        chosen.append(sorted(open_to, key=lambda e: -row[e])[: layer.top])
    return scores, torch.tensor(chosen).view(*x.shape[:2], layer.top)


def test_the_bias_chooses_and_does_not_weigh() -> None:
    layer, x = build(router=SIGMOID, renormalise=False), draw(2, T, C)
    scores, chosen = routed(layer, x)
    every = torch.stack([say(layer.one(e), x) for e in range(E)], -2)
    want = torch.zeros_like(x)
    for k in range(layer.top):
        pick = chosen[..., k, None]
        want += scores.gather(-1, pick) * every.gather(-2, pick[..., None].expand(-1, -1, 1, C))[..., 0, :]
    assert_close(say(layer, x), want, **SAME)
    with torch.no_grad():
        layer.get_parameter("router.correction").zero_()
    assert not torch.equal(routed(layer, x)[1], chosen), "the bias changed nothing; the test shows nothing"
    assert not torch.allclose(say(layer, x), want)


def test_scores_that_all_vanish_still_share_a_token() -> None:
    """In float32 sigmoid(-200) is 0, and 0 / 0 no number."""
    layer = build(router="sigmoid").float()
    with torch.no_grad():
        layer.get_parameter("router.weight").copy_(torch.arange(E)[:, None].expand(E, C))
    out = say(layer, torch.full((1, 1, C), -20.0))
    assert out.isfinite().all() and out.any()


def test_the_loss_moves_the_bias_as_the_paper_does() -> None:
    """Wang et al. 2024, algorithm 1: b += u sign(mean load - load), by a loss that is 0 and trains nothing else."""
    layer, x = build(router={**SIGMOID, "rate": 0.25}, balance=0.0), draw(2, T, C)
    real = torch.rand(2, T, generator=torch.Generator().manual_seed(1)) < 0.7
    where = Where(torch.where(real, real.long().cumsum(1) - 1, -1), real.long()[..., None], {})
    tape = Tape()
    say(layer, x, where, tape)
    (loss,) = tape.losses.values()
    assert list(tape.losses) == [("ff.router.load", ())] and loss.item() == 0.0
    named = dict(layer.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    found = {name: grad for name, grad in zip(named, grads, strict=True) if grad is not None}
    load = routed(layer, x)[1][real].flatten().bincount(minlength=E).double()
    assert list(found) == ["router.correction"]
    assert_close(-found["router.correction"], 0.25 * (load.mean() - load).sign(), **SAME)
    assert load.unique().numel() > 3, "too even to show anything"


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_the_bias_balances_a_router_that_favours_some(optimizer: Any) -> None:
    layer, x = build(router={"kind": "sigmoid", "rate": 1.0}, top=2, balance=0.0), draw(4, 64, C)
    bias, before = layer.get_parameter("router.correction"), layer.get_parameter("router.weight").clone()
    with torch.no_grad():
        bias.copy_(torch.linspace(0, 1, E))  # all want the last
    steps = optimizer(layer.parameters(), lr=0.01)

    def load() -> Tensor:
        return routed(layer, x)[1].flatten().bincount(minlength=E).double()

    first = load()
    for _ in range(150):
        tape = Tape()
        say(layer, x, tape=tape)
        steps.zero_grad()
        sum(tape.losses.values(), torch.zeros(())).backward()
        steps.step()
    assert first.max() > 4 * first.mean()
    assert load().max() < 1.3 * load().mean()
    assert torch.equal(before, layer.get_parameter("router.weight"))


def test_the_bias_is_saved_and_a_rate_of_zero_leaves_it() -> None:
    layer, tape = build(router={**SIGMOID, "rate": 0.0}, balance=0.0), Tape()
    say(layer, draw(1, T, C), tape=tape)
    assert not tape.losses
    assert {"router.weight", "router.correction"} <= layer.state_dict().keys()
    again = build(layer.state_dict(), router=SIGMOID)
    assert isinstance(again.router, SigmoidRouterPart)
    assert torch.equal(again.router.correction, layer.get_parameter("router.correction"))


def test_balance_is_of_the_scores_shares() -> None:
    """E sum h_e mean(s_e / sum s), of sigmoids as of softmaxes."""
    layer, x, tape = build(router=SIGMOID, balance=0.3, z=0.05), draw(2, T, C), Tape()
    say(layer, x, tape=tape)
    scores, chosen = routed(layer, x)
    share = chosen.flatten().bincount(minlength=E).double() / chosen.numel()
    mean = (scores / scores.sum(-1, keepdim=True)).mean((0, 1))
    assert_close(tape.losses["ff.balance", ()], 0.3 * E * (share * mean).sum(), **SAME)
    logits = x @ layer.get_parameter("router.weight").T
    assert_close(tape.losses["ff.z", ()], 0.05 * logits.logsumexp(-1).square().mean(), **SAME)


def test_the_shared_expert_hears_every_token() -> None:
    shared = {"kind": "mlp", "hidden": 5}
    layer, x = build(shared=shared), draw(2, T, C)
    assert isinstance(layer.shared, Layer)
    alone = build({name: w for name, w in layer.state_dict().items() if not name.startswith("shared")})
    assert_close(say(layer, x), say(alone, x) + say(layer.shared, x), **SAME)


# In a model


def test_a_router_is_swapped_by_its_name_and_its_weights_stay() -> None:
    ff = {"kind": "experts", "count": 4, "expert": {"kind": "mlp", "hidden": 5}}
    body = {"kind": "stack", "blocks": [{"kind": "block", "mixer": {"kind": "softmax", "heads": 2}, "ff": ff}]}
    given = {"kind": "decoder", "width": C, "vocabulary": 11, "body": body}
    plain = from_dict(AnyModel, given).build()
    ff["router"] = "sigmoid"
    other = from_dict(AnyModel, given).build()
    ours, theirs = plain.state_dict(), other.state_dict()
    assert theirs.keys() - ours.keys() == {"body.blocks.0.ff.router.correction"}
    assert all(torch.equal(theirs[name], weight) for name, weight in ours.items())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"best": 3}, r"ff\.router: best \(3\) must be at most groups \(1\)"),
        ({"groups": 5}, r"ff\.router: groups \(5\) must cut 12 experts into equal groups of 2 or more"),
        ({"groups": 12}, r"ff\.router: groups \(12\) must cut 12 experts into equal groups of 2 or more"),
        ({"groups": 6}, r"ff\.router: a token takes 3 experts, and its best groups have only 2"),
    ],
)
def test_what_a_sigmoid_router_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(router={"kind": "sigmoid", **fields})


@spec
class Remembers(LayerSpec):
    """A feed-forward with a past."""

    def build(self, at: Site) -> Layer:
        return from_dict(AnyLayer, {"kind": "softmax", "heads": 2}).build(at)


def test_a_shared_expert_keeps_no_past() -> None:
    with pytest.raises(ValueError, match=r"ff\.shared: keeps a past; an expert has to treat every token alone"):
        Experts(count=2, shared=Remembers()).build(Site("ff", C))
