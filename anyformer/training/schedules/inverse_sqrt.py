"""Inverse square root (Vaswani et al. 2017, section 5.3): straight up, then down with the square root of the steps.

scale(s) = min(s / warmup, sqrt(warmup / s)), s = t + 1 counted from 1: whole at s = warmup, whatever the run's length.

The paper's rate is C^-0.5 min(s^-0.5, s warmup^-1.5) for a stream of width C. That is this schedule on
optimizer.lr = C^-0.5 warmup^-0.5, the rate at the peak: 7.0e-4 for C = 512 and warmup = 4000.
"""

from anyformer.core.spec import Count, ScheduleSpec, spec


@spec
class InverseSqrt(ScheduleSpec):
    """warmup: the step at which the rate is whole, counted from 1."""

    warmup: Count = 4000

    def scale(self, step: float, total: float) -> float:
        number = step + 1
        return min(number / self.warmup, (self.warmup / number) ** 0.5)
