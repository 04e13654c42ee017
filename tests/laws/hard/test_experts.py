"""Experts without dropping (Shazeer et al. 2017; the balance loss of Fedus et al. 2022): each token goes to its best k.

p = softmax(W_r x);  y = sum_{e in top k} p_e / (sum of the k) f_e(x)
balance = E sum_e (share of choices)_e (mean p)_e, over real tokens
"""

import torch
from harness import assert_lawful, build, redraw, tokens
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.context import Context
from anyformer.core.fills import normal
from anyformer.core.layer import Stateless
from anyformer.core.linear import Linear
from anyformer.core.model import Model
from anyformer.core.spec import LayerSpec, Site, Size, spec
from anyformer.core.state import Past
from anyformer.core.tape import Tape


@spec
class Experts(LayerSpec):
    experts: Size
    top: Size
    hidden: Size

    def build(self, at: Site) -> "ExpertLayer":
        return ExpertLayer(self, at)


class ExpertLayer(Stateless):
    """router: (E, C), up: (E, F, C), down: (E, C, F)."""

    up: Tensor
    down: Tensor

    def __init__(self, spec: Experts, at: Site) -> None:
        super().__init__(at)
        sizes = {"E": spec.experts, "F": spec.hidden, "C": at.width}
        self.experts, self.top = spec.experts, spec.top
        self.router = Linear(at.at("router"), "E", "C", sizes)
        self.param("up", ("E", "F", "C"), sizes, normal(0.02))
        self.param("down", ("E", "C", "F"), sizes, normal(0.02))

    def forward(self, x: Tensor, ctx: Context, state: Past = None) -> tuple[Tensor, Past]:
        p = self.router(x).softmax(-1)  # (B, T, E)
        gates, chosen = p.topk(self.top)
        gates = gates / gates.sum(-1, keepdim=True)
        real = ctx.where.real[..., None]
        shares = (F.one_hot(chosen, self.experts).sum(2) * real).sum((0, 1)) / (real.sum() * self.top).clamp(min=1)
        mean = (p * real).sum((0, 1)) / real.sum().clamp(min=1)
        ctx.lose(self.path, "balance", self.experts * (shares * mean).sum())
        y = torch.zeros_like(x)
        for expert in range(self.experts):
            row, place, rank = (chosen.masked_fill(~real, -1) == expert).nonzero(as_tuple=True)
            out = F.gelu(x[row, place] @ self.up[expert].T) @ self.down[expert].T
            y = y.index_put((row, place), out * gates[row, place, rank, None], accumulate=True)
        return y, state


def model() -> Model:
    block = Block(mixer=Softmax(heads=4), ff=Experts(experts=5, top=2, hidden=7))
    return redraw(build(Stack(blocks=(block, block))))


def balances(ours: Model, ids: Tensor, checkpoint: bool = False, real: Tensor | None = None) -> Tensor:
    tape = Tape()
    ours(ids, real=real, tape=tape, checkpoint=checkpoint)
    assert [path for path, _ in tape.losses] == [f"body.blocks.{i}.ff.balance" for i in (0, 1)]
    return torch.stack(list(tape.losses.values()))


def test_lawful() -> None:
    assert_lawful(model(), tokens())


def test_every_token_is_the_sum_of_its_best() -> None:
    layer, tape = model().body.blocks.get_submodule("0.ff"), Tape()
    x = torch.randn(2, 9, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    where = Context.start(2, 9).where
    y, counts, total = torch.zeros_like(x), torch.zeros(5), torch.zeros(5)
    for row in range(2):
        for t in range(9):
            p = (layer.router.weight @ x[row, t]).softmax(0)
            best = p.argsort(descending=True)[:2]
            for e in best:
                y[row, t] += p[e] / p[best].sum() * (layer.down[e] @ F.gelu(layer.up[e] @ x[row, t]))
            counts[best], total = counts[best] + 1, total + p
    assert_close(layer(x, Context(where, tape=tape))[0], y, rtol=0, atol=1e-10)
    balance = 5 * (counts / 36 * total / 18).sum()
    assert_close(tape.losses["body.blocks.0.ff.balance", ()], balance)


def test_padding_balances_nothing() -> None:
    ours, ids = model(), tokens(3, 12)
    real = torch.arange(12) >= torch.tensor([0, 3, 7])[:, None]
    assert_close(balances(ours, ids, real=real), balances(ours, torch.where(real, ids, 11), real=real))
    longer = F.pad(ids, (5, 4), value=2)
    assert_close(balances(ours, longer, real=F.pad(real, (5, 4))), balances(ours, ids, real=real))


def test_balance_trains_the_router_also_when_checkpointed() -> None:
    ours, ids = model(), tokens()
    routers = [block.ff.router.weight for block in ours.body.all]
    plain, again = (torch.autograd.grad(balances(ours, ids, c).sum(), routers) for c in (False, True))
    for a, b in zip(plain, again, strict=True):
        assert_close(a, b)
        assert a.abs().amax() > 0
