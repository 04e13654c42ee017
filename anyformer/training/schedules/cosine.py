"""Cosine (Loshchilov & Hutter 2017, without restarts): a straight warm-up, then half a cosine wave down.

scale(t) = (t + 1) / (warmup + 1)  up to warmup;  final + (1 - final) (1 + cos(pi p)) / 2  after it, p from 0 to 1.
"""

import math

from anyformer.core.spec import Fraction, ScheduleSpec, Whole, spec


@spec
class Cosine(ScheduleSpec):
    """warmup: steps until the rate is whole. final: the fraction of the rate that is left at the end."""

    warmup: Whole = 100
    final: Fraction = 0.1

    def scale(self, step: float, total: float) -> float:
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        way = min(1.0, (step - self.warmup) / max(1.0, total - self.warmup))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * way)) / 2
