"""Programs: the pure step of a model is exported and compiled, and stays what it was."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anyformer.core.model import Model
from anyformer.core.state import ModelPast
from anyformer.core.tree import tensors
from anyformer.laws.broken import agree, hold
from anyformer.laws.case import Case, Text, Way, redraw


class Step(nn.Module):
    """The pure step of a model as the forward pass that `torch.export` asks for."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids: Tensor, real: Tensor | None, labels: dict[str, Tensor], past: ModelPast | None, sources: Any
    ) -> tuple[Tensor, ModelPast | None]:
        """Outputs, and the past after them."""
        return self.model.step(ids, real, labels, past, sources=sources)


@torch.no_grad()
def export(case: Case) -> None:
    """`torch.export` takes the step, with a past and padding where there can be a past, and the program agrees."""
    text = case.text(9)
    arguments = arguments_of(case, text)
    program = torch.export.export(Step(case.model), arguments)
    out, past = program.module()(*arguments)
    want, after = case.model.step(*arguments[:4], sources=arguments[4])
    real = slice(None) if arguments[1] is None else arguments[1]
    agree(out[real], want[real], "the exported step's outputs")
    if case.has_state:
        rest = text.between(7, 9)
        more = case.model.step(rest.ids, None, rest.labels, past)[0]
        agree(more, case.model.step(rest.ids, None, rest.labels, after)[0], "the next call after an exported step")


def arguments_of(case: Case, text: Text) -> tuple[Tensor, Tensor | None, dict[str, Tensor], ModelPast | None, Any]:
    """What the step is called with: a past and ragged padding where there can be a past."""
    if not case.has_state:
        return text.ids, None, dict(text.labels), None, case.sources()
    _, state = case.feed(text, case.state(Way(12)), (5,))
    part = text.between(5, 7)
    real = torch.tensor([[True, True], [False, True], [False, False]])
    return part.ids, real, dict(part.labels), state.past, None


@torch.no_grad()
def compiled(case: Case) -> None:
    """`torch.compile` takes the whole step, agrees, and compiles once for any number of decoding steps."""
    decode(case, "aot_eager")


@torch.no_grad()
def decode(case: Case, backend: str) -> None:
    """Compiled by `backend`: seven tokens, one by one."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    model = redraw(case.spec.build(dtype=torch.float64), 0.5)
    text = case.text(12)
    want = case.whole(text)
    if not case.has_state:
        step = torch.compile(model.step, backend=backend, fullgraph=True, dynamic=False)
        agree(step(text.ids, None, dict(text.labels), None, sources=case.sources())[0], want, f"compiled by {backend}")
        return
    part = text.between(0, 5)
    _, state = model(part.ids, model.init_state(3, capacity=16, sources=case.sources()), **part.given)
    model.compile_step(backend)
    for at in range(5, 12):
        part = text.between(at, at + 1)
        out, state = model(part.ids, state, **part.given)
        agree(out, want[:, at : at + 1], f"token {at}, compiled by {backend}")
    graphs = counters["stats"]["unique_graphs"]
    hold(graphs == 1, f"seven decoding steps were compiled {graphs} times; something in the past changes its shape")
    hold(bool(tensors(state.past)), "there is no past")
