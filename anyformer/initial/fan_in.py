"""As wide as the forward signal allows (LeCun et al. 1998, §4.6): w ~ N(0, gain²/in)."""

from anyformer.core.fills import Fill, normal
from anyformer.core.spec import InitialSpec, Positive, spec


@spec
class FanIn(InitialSpec):
    """N(0, gain²/in): what comes out is as large as what went in (LeCun et al. 1998).

    shrink: a map that joins the stream is 1/√n as wide, n being how many join it.
    """

    gain: Positive = 1.0
    shrink: bool = True

    def fill(self, out: int, into: int, joining: int) -> Fill:
        return normal(self.gain / (into * (joining if self.shrink else 1)) ** 0.5)
