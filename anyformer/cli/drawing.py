"""The options of verbs that draw tokens."""

from collections.abc import Iterable
from typing import Annotated

from typer import Option

from anyformer.core.errors import ConfigError

Temperature = Annotated[float | None, Option(help="Below 1 is safer, above 1 bolder.")]
TopK = Annotated[int | None, Option(help="Draw only from the k likeliest.")]
TopP = Annotated[float | None, Option(help="Draw only from the fewest that reach this probability.")]
MinP = Annotated[float | None, Option(help="Draw only what has this part of the likeliest's probability.")]


def drawn(
    greedy: bool, temperature: float | None, top_k: int | None, top_p: float | None, min_p: float | None
) -> dict[str, float]:
    """What is said of how tokens are drawn, by the names that a Sampling has; nothing may be beside --greedy."""
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    said = {name: value for name, value in given.items() if value is not None}
    if greedy and said:
        raise ConfigError(f"--greedy takes the likeliest token and draws none: leave out {' and '.join(options(said))}")
    return said


def options(names: Iterable[str]) -> list[str]:
    """Names as the command line has them."""
    return [f"--{name.replace('_', '-')}" for name in names]
