"""As wide as forward and backward signals allow (Glorot & Bengio 2010, equation 16): U(-a, a), a = √(6/(in+out))."""

from anyformer.core.fills import Fill, uniform
from anyformer.core.spec import InitialSpec, Positive, spec


@spec
class Xavier(InitialSpec):
    """Uniform, of variance 2 gain²/(in + out) (Glorot & Bengio 2010); good for narrow models and few layers."""

    gain: Positive = 1.0

    def fill(self, out: int, into: int, joining: int) -> Fill:
        return uniform(self.gain * (6 / (into + out)) ** 0.5)
