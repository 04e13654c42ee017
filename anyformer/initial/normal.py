"""One width for all maps (Radford et al. 2019, GPT-2; Devlin et al. 2019, BERT): w ~ N(0, std²)."""

from anyformer.core.fills import Fill, normal
from anyformer.core.spec import InitialSpec, Positive, spec


@spec
class Normal(InitialSpec):
    """N(0, std²) whatever a map's sizes (GPT-2, BERT); made for widths of about 768.

    shrink: a map that joins the stream is 1/√n as wide, n being how many join it, so that they add up to one (GPT-2).
    """

    std: Positive = 0.02
    shrink: bool = True

    def fill(self, out: int, into: int, joining: int) -> Fill:
        return normal(self.std / joining**0.5 if self.shrink else self.std)
