"""A plan as an ONNX graph: torch traces it, its exporter translates it; a part that neither can do is named."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anyformer import __version__
from anyformer.core.errors import ConfigError
from anyformer.core.layer import Part
from anyformer.core.model import Model
from anyformer.models.onnx_plans import Given, Plan


@dataclass(frozen=True)
class Graph:
    """A graph of onnx_ir, and how what an earlier call gives begins."""

    model: Any
    starts: Given


class Program(nn.Module):
    """A plan as the forward pass that `torch.export` asks for."""

    def __init__(self, model: Model, plan: Plan, watch: Watch) -> None:
        super().__init__()
        self.model, self.plan, self.watch = model, plan, watch
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.plan.given, inputs, strict=True))
        axes = self.plan.axes.items()
        self.watch.sizes = [(size, given[name].shape[axis]) for name, sizes in axes for axis, size in sizes.items()]
        return tuple(self.plan.run(given).values())


class Watch:
    """Watches who runs, and who asks how much a size is, so that the graph is good for that size alone.

    at: the parts that are running. sizes: those that should stay free. bound: the first part that asked, and for what.
    """

    def __init__(self) -> None:
        self.at: list[str] = []
        self.sizes: list[tuple[str, Any]] = []
        self.bound: tuple[str, str] | None = None

    def look(self, path: str = "") -> None:
        """Whether a size is not free any more, after this part."""
        asked = [name for name, size in self.sizes if not free(size)]
        if self.bound is None and asked:
            self.bound = path or "this model", asked[0]

    @contextmanager
    def over(self, model: Model) -> Iterator[None]:
        """While the model is traced."""

        def enter(part: nn.Module, inputs: object) -> None:
            self.look(self.at[-1] if self.at else "")
            self.at.append(str(part.path))

        def leave(part: nn.Module, inputs: object, output: object) -> None:
            self.look(self.at.pop())

        parts = [part for part in model.modules() if isinstance(part, Part)]
        hooks = [part.register_forward_pre_hook(enter) for part in parts]
        hooks += [part.register_forward_hook(leave) for part in parts]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def free(size: Any) -> bool:
    """Whether nothing has asked how much it is."""
    if not isinstance(size, torch.SymInt):
        return False
    bounds = size.node.shape_env.bound_sympy(size.node.expr)
    return bounds.lower <= 2 and bounds.upper > 2**31


def graph_of(model: Model, plan: Plan) -> Graph:
    """What ONNX says of a plan. ConfigError names the part that it cannot say."""
    from onnxscript.optimizer import optimize_ir

    watch = Watch()
    shapes = tuple(dict.fromkeys(plan.axes[name], torch.export.Dim.AUTO) for name in plan.given)
    try:
        with watch.over(model):
            program = Program(model, plan, watch)
            exported = torch.export.export(program, tuple(plan.given.values()), dynamic_shapes=(shapes,))
            watch.look()
    except MemoryError:
        raise
    except Exception as error:  # whatever torch raises
        at = watch.at[-1] if watch.at else "this model"
        raise ConfigError(f"{at}: no graph can be made of it: {str(error).splitlines()[0]}") from error
    if watch.bound is not None:
        raise ConfigError("{}: what it computes depends on the {}, which has to stay free".format(*watch.bound))
    outputs = list(plan.run(plan.given))
    try:
        made = torch.onnx.export(
            exported,
            (),
            input_names=list(plan.given),
            output_names=outputs,
            custom_translation_table=translations(),
            dynamo=True,
            verbose=False,
            optimize=False,
        )
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(unsaid(error)) from error
    assert made is not None
    # A weight that is turned once and for all would be a second copy, which no other graph could share.
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    optimize_ir(made.model, should_fold=lambda node: False if reads(node, weights) else None)
    tidy(made.model, plan)
    return Graph(made.model, plan.starts)


def translations() -> dict[Any, Callable[..., Any]]:
    """What the exporter lacks, or does not do exactly."""
    import onnx_ir as ir
    from onnxscript import opset20

    op: Any = opset20

    def sort(x, *, stable: bool = True, dim: int = -1, descending: bool = False):
        size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, size, axis=dim, largest=descending, sorted=True)  # of equal ones the first comes first

    def scalar(s: float, dtype: int = 1, layout: str = "", device: str = "", pin_memory: bool = False):
        return op.Constant(value=ir.tensor(s, ir.DataType(dtype)))  # a float64 keeps all of its digits

    return {torch.ops.aten.sort.stable: sort, torch.ops.aten.scalar_tensor.default: scalar}


def unsaid(error: BaseException | None) -> str:
    """The part whose operation ONNX has no words for: the exporter's frames know which node it was at."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(node := frame.f_locals.get("node"), torch.fx.Node) and "nn_module_stack" in node.meta:
                *_, (path, _) = node.meta["nn_module_stack"].values()
                return f"{path.removeprefix('model.')}: ONNX has no words for {node.target}"
        error = error.__cause__
    return "this model: ONNX has no words for what it computes"


def reads(node: Any, weights: set[int]) -> bool:
    """Whether a node reads a weight itself."""
    values = [value.const_value for value in node.inputs if value is not None]
    return any(isinstance(getattr(x, "raw", None), Tensor) and x.raw.data_ptr() in weights for x in values)


def tidy(model: Any, plan: Plan) -> None:
    """Takes out what the exporter notes of our code; weights are called by their paths, sizes as the plan does."""
    import onnx_ir as ir

    ports = [*model.graph.inputs, *model.graph.outputs]
    sizes = {
        str(value.shape[axis]): name
        for value in ports[: len(plan.axes)]
        for axis, name in plan.axes[value.name].items()
    }
    for value in ports:
        value.shape = ir.Shape(
            [x if isinstance(x, int) else re.sub(r"s\d+", lambda m: sizes.get(m[0], m[0]), str(x)) for x in value.shape]
        )
    model.producer_name, model.producer_version = "anyformer", __version__
    model.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for name, value in list(model.graph.initializers.items()):
        value.metadata_props.clear()
        value.name = name.removeprefix("model.")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch and the exporter say on the way."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
