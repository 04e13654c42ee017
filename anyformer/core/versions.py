"""Written data carries a version: what an older release wrote is carried forward, what a newer one wrote is refused."""

from collections.abc import Callable, Mapping
from typing import Any

from anyformer.core.errors import ConfigError

Step = Callable[[dict[str, Any]], dict[str, Any]]


def forward(tree: dict[str, Any], current: int, steps: Mapping[int, Step], what: str) -> dict[str, Any]:
    """The tree as version `current` would have written it; `steps[n]` leads from version n to n + 1."""
    version = tree.get("version", current)
    if type(version) is not int or version < 1:
        return tree  # the field's own type says what is wrong
    if version > current:
        raise ConfigError(
            f"this {what} has version {version} and this anyformer reads up to {current}; install a newer anyformer"
        )
    for old in range(version, current):
        tree = {**steps[old](tree), "version": old + 1}
    return tree
