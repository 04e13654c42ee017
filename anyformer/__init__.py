"""anyformer: every transformer, from the same few parts.

`import anyformer as af` costs next to nothing: a name below is imported, and torch with it, when it is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyformer.core.spec import Ref as Ref
    from anyformer.generation.beam import Beams as Beams
    from anyformer.generation.beam import PublishedBeams as PublishedBeams
    from anyformer.generation.chat import Chat as Chat
    from anyformer.generation.conversation import Conversation as Conversation
    from anyformer.generation.generate import generate as generate
    from anyformer.generation.rules import Rules as Rules
    from anyformer.generation.sampling import Sampling as Sampling
    from anyformer.models.load import load as load
    from anyformer.recipes.read import read as read
    from anyformer.training.embed import embed as embed
    from anyformer.training.evaluate import evaluate as evaluate
    from anyformer.training.predict import predict as predict
    from anyformer.training.train import train as train

__version__ = "0.1.0"

NAMES = {
    "Beams": "anyformer.generation.beam",
    "Chat": "anyformer.generation.chat",
    "Conversation": "anyformer.generation.conversation",
    "PublishedBeams": "anyformer.generation.beam",
    "Ref": "anyformer.core.spec",
    "Rules": "anyformer.generation.rules",
    "Sampling": "anyformer.generation.sampling",
    "embed": "anyformer.training.embed",
    "evaluate": "anyformer.training.evaluate",
    "generate": "anyformer.generation.generate",
    "load": "anyformer.models.load",
    "predict": "anyformer.training.predict",
    "read": "anyformer.recipes.read",
    "train": "anyformer.training.train",
}


def __getattr__(name: str) -> object:
    if name not in NAMES:
        raise AttributeError(f"anyformer has no {name!r}; it has: {', '.join(sorted(NAMES))}")
    from importlib import import_module

    value = getattr(import_module(NAMES[name]), name)
    globals()[name] = value  # found once, then like any other name of the module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})
