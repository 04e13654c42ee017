"""A published config, read into a declaration and written from one by the same lines.

A model type takes keys from a `Config` and gives a spec. Each key is taken with the path of its value in that spec, so
that the same lines run backwards too: given a spec, a key's value is what stands at its path. Written configs are
proven by being read again, and whatever the result differs in is a part that the type cannot express.

    heads = c.take("num_attention_heads", SIZE, "body.blocks.0.mixer.heads")

Reading is strict: every key is taken, expected or harmless, and whatever is left is an error that names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.explain import came
from anyformer.core.spec import Spec
from anyformer.core.tables import nearest

if TYPE_CHECKING:
    from anyformer.feedforward.activations import Activation

T = TypeVar("T")

MOST = 2**24  # of a size, as in the specs
MISSING: Any = object()  # a key without a default: it has to be there

# Keys that say nothing about what the model computes.
# fmt: off
HARMLESS = frozenset(
    {
        "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels",
        "architectures", "auto_map", "cache_implementation", "chunk_size_feed_forward", "custom_pipelines",
        "dtype", "gradient_checkpointing", "is_decoder", "is_encoder_decoder", "language", "model_type", "name",
        "output_past", "sentence_transformers", "tf_legacy_loss", "use_bfloat16",
        "output_attentions", "output_hidden_states", "problem_type", "return_dict", "torch_dtype",
        "torchscript", "transformers_version", "transformers.js_config", "use_cache", "use_return_dict",
        "pruned_heads", "return_dict_in_generate", "task_specific_params", "tokenizer_class", "prefix",
        "finetuning_task", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id",
        "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids",
        "begin_suppress_tokens", "suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
        "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "length_penalty", "max_length",
        "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
        "output_scores", "remove_invalid_values", "repetition_penalty", "temperature", "top_k", "top_p",
        "typical_p", "id2label", "label2id", "num_labels", "pretraining_tp", "initializer_range",
        "initializer_factor", "classifier_dropout",
    }
)
# fmt: on

# Keys that any config may have, and that say nothing as long as they say this.
USUAL = {"add_cross_attention": False, "cross_attention_hidden_size": None, "tie_encoder_decoder": False}


class Inexpressible(ConfigError):
    """A declaration that a model type has no key for. count: of the places where it would be another."""

    def __init__(self, message: str, count: int = MOST) -> None:
        super().__init__(message)
        self.count = count


@dataclass(frozen=True)
class Kind(Generic[T]):
    """How a value is written in a config, and what it is here.

    read: from a config, ValueError for what is not allowed. write: to a config, from what stands in a spec's
    plain data. what: is allowed, in words.
    """

    what: str
    read: Callable[[Any], T]
    write: Callable[[Any], Any] = field(default=lambda value: value)


def _of(kinds: tuple[type, ...], allowed: Callable[[Any], bool]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) not in kinds or not allowed(value):  # type() and not isinstance: true is no number
            raise ValueError
        return value

    return read


SIZE: Kind[int] = Kind("a whole number from 1", _of((int,), lambda n: 1 <= n <= MOST))
WHOLE: Kind[int] = Kind("a whole number from 0", _of((int,), lambda n: 0 <= n <= MOST))
NUMBER: Kind[float] = Kind("a number", lambda value: float(_of((int, float), isfinite)(value)))
POSITIVE: Kind[float] = Kind("a number above 0", lambda value: float(_of((int, float), lambda n: 0 < n < 2**60)(value)))
FRACTION: Kind[float] = Kind(
    "a number from 0 to 1", lambda value: float(_of((int, float), lambda n: 0 <= n <= 1)(value))
)
FLAG: Kind[bool] = Kind("true or false", _of((bool,), lambda _: True))


def one_of(names: Mapping[Any, T]) -> Kind[T]:
    """One of some values, each standing for something; where several stand for the same, the first is written.

    What they stand for may be a spec, which is compared with what is written of it.
    """

    def read(value: Any) -> T:
        # compared by type as well: 1 is not true
        found = [ours for name, ours in names.items() if type(name) is type(value) and name == value]
        if not found:
            raise ValueError
        return found[0]

    def write(value: T) -> Any:
        for name, ours in names.items():
            if value in (ours, ours.to_dict() if isinstance(ours, Spec) else ours):
                return name
        raise ValueError

    return Kind(f"one of {', '.join(map(repr, names))}", read, write)


def or_none(kind: Kind[T]) -> Kind[T | None]:
    """null as well."""
    return Kind(
        f"{kind.what}, or null",
        lambda value: None if value is None else kind.read(value),
        lambda value: None if value is None else kind.write(value),
    )


def several(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """A list."""

    def read(values: Any) -> tuple[T, ...]:
        if not isinstance(values, list):
            raise ValueError
        return tuple(map(kind.read, values))

    return Kind(f"a list of which each is {kind.what}", read, lambda values: [kind.write(value) for value in values])


ACTIVATIONS: Kind[Activation] = one_of(
    {
        "gelu": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "gelu_accurate": "gelu_tanh",
        "quick_gelu": "quick_gelu",
        "silu": "silu",
        "swish": "silu",
        "relu": "relu",
        "relu2": "relu2",
        "tanh": "tanh",
        "sigmoid": "sigmoid",
        "linear": "identity",
    }
)


class Config(ABC):
    """What a model type takes its keys from, in either direction."""

    @abstractmethod
    def take(self, key: str, kind: Kind[T], at: str, default: Any = MISSING) -> T:
        """The value of a key. at: where it stands in the spec. default: as a config has it, where the key is absent."""

    @abstractmethod
    def given(self, key: str, kind: Kind[T], default: T) -> T:
        """The value of a key that is only read: what it says is written under other keys; `default` backwards."""

    @abstractmethod
    def count(self, key: str, at: str, default: Any = MISSING) -> int:
        """The length of the list that stands at a path."""

    @abstractmethod
    def expect(self, key: str, *allowed: Any, default: Any = MISSING) -> None:
        """A key of which only some values are understood; the first one is written."""

    @abstractmethod
    def each(self, key: str, kind: Kind[T], at: str, count: int, default: Any = MISSING) -> tuple[T, ...]:
        """A list of a value for each layer. at: with {i} for the layer's number."""

    @abstractmethod
    def part(self, key: str, default: Any = MISSING) -> Config | None:
        """A config within this one; None where there is none."""

    @abstractmethod
    def kind(self, at: str) -> str | None:
        """Written backwards: the kind of the part at a path, `absent` where there is none; read forwards: None.

        For the few keys whose place depends on what is there.
        """

    def ignore(self, *keys: str) -> None:  # noqa: B027
        """Keys that change nothing here."""

    def said(self, keys: Mapping[str, Any]) -> None:
        """Keys of some files that only say again what this type is; whatever else they say is refused."""
        for key, value in keys.items():
            self.given(key, one_of({value: value}), value)


class Reading(Config):
    """Forwards: a config's own values, and a list of what nobody has asked for."""

    def __init__(self, tree: object, where: str) -> None:
        if not isinstance(tree, dict):
            raise InputError(f"{where}: should be a table of keys; came {came(tree)}")
        self.tree, self.where = tree, where
        self.left = {key for key in set(tree) - HARMLESS if key not in USUAL or tree[key] is not USUAL[key]}
        self.parts: list[Reading] = []

    def take(self, key: str, kind: Kind[T], at: str, default: Any = MISSING) -> T:
        return self._read(key, kind, default)

    def given(self, key: str, kind: Kind[T], default: T) -> T:
        return self._read(key, kind, default) if key in self.tree else default

    def count(self, key: str, at: str, default: Any = MISSING) -> int:
        count = self._read(key, SIZE, default)
        if count > 10_000:
            raise InputError(f"{self.where}: {key} is {count}; no model has more than 10000 layers")
        return count

    def expect(self, key: str, *allowed: Any, default: Any = MISSING) -> None:
        self._read(key, one_of({value: value for value in allowed}), default)

    def each(self, key: str, kind: Kind[T], at: str, count: int, default: Any = MISSING) -> tuple[T, ...]:
        values = self._read(key, several(kind), default)
        if len(values) != count:
            raise InputError(f"{self.where}: {key} has {len(values)} entries for {count} layers")
        return values

    def part(self, key: str, default: Any = MISSING) -> Reading | None:
        tree = self._value(key, default)
        if tree is None:
            return None
        self.parts.append(Reading(tree, f"{self.where}: {key}"))
        return self.parts[-1]

    def kind(self, at: str) -> str | None:
        return None

    def ignore(self, *keys: str) -> None:
        self.left -= set(keys)

    def unread(self) -> list[str]:
        """The keys that nobody took, with those of the configs within."""
        return sorted(self.left) + [key for part in self.parts for key in part.unread()]

    def done(self, allow: Collection[str] = ()) -> None:
        """Refuse what is left. allow: keys to go on without."""
        unread = [key for key in self.unread() if key not in allow]
        if unread:
            known = sorted(set(self.tree) - self.left)
            near = nearest(unread[0], known)
            raise InputError(
                f"{self.where}: nothing here reads {', '.join(map(repr, unread))}{near}; add --allow {unread[0]} to go "
                "on without it, knowing that the numbers may differ"
            )

    def _read(self, key: str, kind: Kind[T], default: Any) -> T:
        value = self._value(key, default)
        try:
            return kind.read(value)
        except (ValueError, TypeError):
            raise InputError(f"{self.where}: {key} should be {kind.what}; came {came(value)}") from None

    def _value(self, key: str, default: Any) -> Any:
        self.left.discard(key)
        if key in self.tree:
            return self.tree[key]
        if default is MISSING:
            raise InputError(f"{self.where}: {key} is missing")
        return default


class Writing(Config):
    """Backwards: what stands in a spec, written under the config's keys."""

    def __init__(self, spec: Mapping[str, Any], what: str, within: str = "") -> None:
        """spec: as plain data. what: the model type."""
        self.spec, self.what, self.within = spec, what, within
        self.tree: dict[str, Any] = {}

    def take(self, key: str, kind: Kind[T], at: str, default: Any = MISSING) -> T:
        value = self._at(at)
        try:
            self.tree[key] = kind.write(value)
            return kind.read(self.tree[key])
        except (ValueError, TypeError, LookupError):
            raise Inexpressible(f"{at} is {came(value)}; {self.what} says {kind.what} there, as {key}") from None

    def given(self, key: str, kind: Kind[T], default: T) -> T:
        return default

    def count(self, key: str, at: str, default: Any = MISSING) -> int:
        self.tree[key] = len(self._at(at))
        return self.tree[key]

    def expect(self, key: str, *allowed: Any, default: Any = MISSING) -> None:
        self.tree[key] = allowed[0]

    def each(self, key: str, kind: Kind[T], at: str, count: int, default: Any = MISSING) -> tuple[T, ...]:
        values, written = [], []
        for index in range(count):
            values.append(self.take(key, kind, at.format(i=index)))
            written.append(self.tree[key])
        self.tree[key] = written
        return tuple(values)

    def part(self, key: str, default: Any = MISSING) -> Writing | None:
        inner = Writing(self.spec, self.what)
        self.tree[key] = inner.tree
        return inner

    def kind(self, at: str) -> str | None:
        try:
            node = self._at(at)
        except Inexpressible:
            return "absent"
        return node.get("kind") if isinstance(node, dict) else "absent"

    def _at(self, path: str) -> Any:
        node: Any = self.spec
        for name in path.split("."):
            try:
                node = node[int(name)] if isinstance(node, list) else node[name]
            except (KeyError, IndexError, TypeError, ValueError):
                raise Inexpressible(f"{self.what} has {path}, and this declaration has no such thing") from None
        return node
