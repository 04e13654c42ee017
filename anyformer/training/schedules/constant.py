"""Constant: a straight warm-up, then the rate as it is."""

from anyformer.core.spec import ScheduleSpec, Whole, spec


@spec
class Constant(ScheduleSpec):
    """warmup: steps until the rate is whole."""

    warmup: Whole = 0

    def scale(self, step: float, total: float) -> float:
        return min(1.0, (step + 1) / (self.warmup + 1))
