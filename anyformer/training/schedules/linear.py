"""Linear (Devlin et al. 2019): a straight warm-up, then straight down.

scale(t) = (t + 1) / (warmup + 1)  up to warmup;  1 - (1 - final) p  after it, p from 0 to 1.
"""

from anyformer.core.spec import Fraction, ScheduleSpec, Whole, spec


@spec
class Linear(ScheduleSpec):
    """warmup: steps until the rate is whole. final: the fraction of the rate that is left at the end."""

    warmup: Whole = 100
    final: Fraction = 0.0

    def scale(self, step: float, total: float) -> float:
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        way = min(1.0, (step - self.warmup) / max(1.0, total - self.warmup))
        return 1 - (1 - self.final) * way
