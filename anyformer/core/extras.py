"""Extras: packages that only some parts use; imported when they do, and said how to install when they are missing."""

import importlib
from types import ModuleType

from anyformer.core.errors import ConfigError


def need(module: str, extra: str) -> ModuleType:
    """A module of another package. extra: what installs it, in `anyformer[extra]`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # it is there, and lacks something itself
        raise ConfigError(f"{error.name} is not installed; try: pip install 'anyformer[{extra}]'") from None
