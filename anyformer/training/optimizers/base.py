"""What optimisers share: which parameters are decayed, which are hidden matrices, how a schedule reaches the rates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyformer.core.model import Model

TABLES = {"V", "L", "N", "M"}  # axes of what is looked up: words, positions, buckets of distances, memory slots


def trained(model: nn.Module) -> list[nn.Parameter]:
    """What training changes: what is frozen has no gradient, and no state here."""
    return [p for p in model.parameters() if p.requires_grad]


def groups(parameters: Iterable[nn.Parameter], rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices are decayed; gains, biases and other vectors are not (GPT-2, BERT)."""
    all_of_them = list(parameters)
    matrices = [p for p in all_of_them if p.dim() >= 2]
    vectors = [p for p in all_of_them if p.dim() < 2]
    decays = ((matrices, weight_decay), (vectors, 0.0))
    return [{"params": part, "lr": rate, "rate": rate, "weight_decay": decay} for part, decay in decays if part]


def axes_of(model: nn.Module) -> Iterator[tuple[nn.Parameter, tuple[str, ...]]]:
    """Every parameter with its named axes."""
    from anyformer.core.layer import Part

    for part in model.modules():
        if isinstance(part, Part):
            yield from ((parameter, part.axes[name]) for name, parameter in part.named_parameters(recurse=False))


def is_table(axes: tuple[str, ...]) -> bool:
    """Whether what has these axes is looked up."""
    return not TABLES.isdisjoint(" ".join(axes).split())


def hidden_matrices(model: Model) -> list[nn.Parameter]:
    """The trained weights that take vectors to vectors inside the model: neither tables nor the head's."""
    outer = set() if model.head is None else set(model.head.parameters())
    some = [p for p, axes in axes_of(model) if len(axes) == 2 and not is_table(axes)]
    return [p for p in some if p.requires_grad and p not in outer]


def scale_rates(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Each group's rate, scaled."""
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * scale


def clip(model: nn.Module, most: float | None) -> float:
    """The norm of all gradients together, which is cut to `most`."""
    import torch

    with torch.no_grad():
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        if most is not None:
            torch.nn.utils.clip_grads_with_norm_(list(model.parameters()), most, norm)
    return float(norm)
