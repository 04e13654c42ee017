"""Warm-up, stable, decay (Hu et al. 2024, MiniCPM): the whole rate for most of the run, then down in its last part.

scale(t) = (t + 1) / (warmup + 1)  up to warmup;  1  until the last `decay` of the run;  1 - (1 - final) f(p)  in it,
p from 0 to 1: f = p, or sqrt(p) (Hägele et al. 2024).
"""

from typing import Literal

from anyformer.core.spec import Fraction, ScheduleSpec, Whole, spec


@spec
class Wsd(ScheduleSpec):
    """warmup: steps until the rate is whole. decay: the fraction of the run in which it falls to `final` of itself."""

    warmup: Whole = 100
    decay: Fraction = 0.2
    final: Fraction = 0.0
    shape: Literal["linear", "sqrt"] = "sqrt"

    def scale(self, step: float, total: float) -> float:
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        first = max(self.warmup, total * (1 - self.decay))
        if step <= first:
            return 1.0
        way = min(1.0, (step - first) / max(1.0, total - first))
        return 1 - (1 - self.final) * (way if self.shape == "linear" else way**0.5)
