"""One block after the other."""

from __future__ import annotations

from torch import Tensor

from anyformer.core.spec import FlowSpec, Site, spec
from anyformer.flows.base import Block, Flow


@spec
class Plain(FlowSpec):
    """One block after the other (Vaswani et al. 2017)."""

    def build(self, at: Site) -> PlainFlow:
        return PlainFlow(at)


class PlainFlow(Flow):
    """The history is the stream."""

    def open(self, x: Tensor) -> Tensor:
        return x

    def around(self, index: int, block: Block, history: Tensor) -> Tensor:
        return block(history)

    def close(self, history: Tensor) -> Tensor:
        return history
