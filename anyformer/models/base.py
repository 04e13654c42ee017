"""A model type: a declaration from a published config, and a table of names; no modules of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

from anyformer.checkpoints.config import Config, Inexpressible, Reading, Writing
from anyformer.checkpoints.names import Names
from anyformer.core.errors import InputError
from anyformer.core.spec import ModelSpec
from anyformer.models.rope import older

# Fields that only a new model reads.
FIRST_WEIGHTS = {"initial", "std", "version"}


class ModelType(ABC):
    """How one `model_type` of published configs is declared here, in both directions.

    classes: the model classes that are understood, the usual one first. older_classes: their names in older files.
    prefix: what the names of a bare model's file lack. ties: tensors that some files hold although they are another's.
    renamed: endings of names in older files -> those of today. aliases: other names of keys -> those that are written.
    """

    classes: ClassVar[tuple[str, ...]]
    older_classes: ClassVar[Mapping[str, str]] = {}
    prefix: ClassVar[str] = ""
    ties: ClassVar[Mapping[str, str]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def declare(self, c: Config, name: str) -> ModelSpec:
        """The spec of a config, whose keys are taken from `c`. name: of the file's class, such as LlamaForCausalLM."""

    @abstractmethod
    def names(self, spec: ModelSpec) -> Names:
        """The names of the tensors of that spec's files."""

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        """The spec as a file's tensors have it, where its config leaves that open. tensors: names as in the table."""
        return spec

    def newer(self, name: str) -> str:
        """A tensor's name as files have it today."""
        for old, new in self.renamed.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        return name

    def read(self, tree: Mapping[str, Any], where: str, allow: Collection[str] = ()) -> ModelSpec:
        """The spec that a published config declares; strict. allow: keys to go on without."""
        named = older(tree)
        named |= {key: named.pop(alias) for alias, key in self.aliases.items() if alias in named}
        config = Reading(named, where)
        spec = self.declare(config, self.class_of(tree, where))
        config.done(allow)
        return spec

    def class_of(self, tree: Mapping[str, Any], where: str) -> str:
        """The model class that a config names; the usual one where it names none."""
        named = tree.get("architectures") or [self.classes[0]]
        if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str):
            name = self.older_classes.get(named[0], named[0])
            if name in self.classes:
                return name
        raise InputError(f"{where}: architectures should be one of {', '.join(self.classes)}; came {named!r}")

    def write(self, model_type: str, spec: ModelSpec) -> dict[str, Any]:
        """The published config of a spec; Inexpressible names what this type has no key for."""
        wanted, reasons = _plain(spec.to_dict()), []
        for name in self.classes:
            writing = Writing(spec.to_dict(), model_type)
            try:
                made = _plain(self.declare(writing, name).to_dict())
                if odd := list(_differences(made, wanted, "")):
                    raise Inexpressible(f"{model_type} cannot express {odd[0]}", len(odd))
                return {"architectures": [name], "model_type": model_type, **writing.tree}
            except Inexpressible as error:
                reasons.append(error)
            except ValueError as error:  # parts that no config of this class can have together
                reasons.append(Inexpressible(f"{model_type}: {error}"))
        raise min(reasons, key=lambda reason: reason.count)


def is_bare(name: str) -> bool:
    """Whether a class of transformers is a model without a head, whose tensors stand within no other module."""
    return name.endswith("Model") and not name.endswith(("LMHeadModel", "MTModel"))


def _plain(tree: Any) -> Any:
    """A spec's data without what only a new model reads."""
    if isinstance(tree, list | tuple):
        return [_plain(item) for item in tree]
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items() if key not in FIRST_WEIGHTS}
    return tree


def _differences(made: Any, wanted: Any, at: str) -> Iterator[str]:
    """The places where two declarations differ, in words."""
    if isinstance(made, dict) and isinstance(wanted, dict) and made.keys() == wanted.keys():
        pairs = [(key, made[key], wanted[key]) for key in wanted]
    elif isinstance(made, list) and isinstance(wanted, list) and len(made) == len(wanted):
        pairs = [(index, *both) for index, both in enumerate(zip(made, wanted, strict=True))]
    else:
        if made != wanted:
            yield f"{at} = {wanted!r}; it has {made!r} there"
        return
    for key, mine, other in pairs:
        yield from _differences(mine, other, f"{at}.{key}".lstrip("."))
