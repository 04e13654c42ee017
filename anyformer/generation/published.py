"""The settings that a published folder comes with: its `generation_config.json`, read as strictly as its config.

Folders of before there was such a file have the same keys among those of the model, in `config.json`. A key that says
nothing of tokens is harmless; of one that does, and that is not done here, only the value that changes nothing is
understood. What is absent is as in Transformers: greedy, one beam, and where tokens are drawn the 50 likeliest.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from anyformer.checkpoints.config import (
    FLAG,
    NUMBER,
    POSITIVE,
    SIZE,
    WHOLE,
    Kind,
    Reading,
    one_of,
    or_none,
    several,
)
from anyformer.checkpoints.files import read_json
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.explain import came
from anyformer.generation.beam import PublishedBeams
from anyformer.generation.rules import Rules
from anyformer.generation.sampling import Sampling
from anyformer.models.published import CONFIG
from anyformer.models.texts import GENERATION

T = TypeVar("T")

# Keys that do not change which tokens are written: of speed, of what is given back, of other ways to the same tokens.
# fmt: off
HARMLESS = (
    "_from_model_config", "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind",
    "cache_config", "cache_implementation", "compile_config", "continuous_batching_config", "disable_compile",
    "is_assistant", "max_cache_len", "num_assistant_tokens", "num_assistant_tokens_schedule", "num_return_sequences",
    "output_logits", "prefill_chunk_size", "remove_invalid_values", "target_lookbehind", "trust_remote_code",
)
# Of these only what changes nothing is understood, and null.
NEUTRAL: dict[str, object] = {
    "constraints": None, "diversity_penalty": 0, "dola_layers": None, "encoder_repetition_penalty": 1,
    "epsilon_cutoff": 0, "eta_cutoff": 0, "exponential_decay_length_penalty": None, "force_words_ids": None,
    "guidance_scale": 1, "low_memory": False, "max_time": None, "num_beam_groups": 1, "penalty_alpha": 0,
    "prompt_lookup_num_tokens": None, "renormalize_logits": False, "sequence_bias": None, "token_healing": False,
    "top_h": None, "typical_p": 1, "use_mtp": False, "watermarking_config": None,
}
# What an old `config.json` may say of how to write.
OLD = (
    "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "repetition_penalty", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
)
# fmt: on
EARLY: Kind[bool | Literal["never"]] = one_of({False: False, True: True, "never": "never"})
WORDS: Kind[tuple[tuple[int, ...], ...]] = several(several(WHOLE))
TEXT: Kind[str] = Kind("text", lambda value: _text(value))


@dataclass(frozen=True)
class Settings:
    """beams: of which 1 is no search. tokens: at most; length: of prompt and text together, at most; None: not said."""

    sampling: Sampling
    beams: PublishedBeams
    rules: Rules
    tokens: int | None = None
    length: int | None = None
    stop: tuple[str, ...] = ()

    def most(self, prompt: int) -> int | None:
        """How many tokens a text may have after a prompt of so many; None: not said."""
        if self.tokens is not None or self.length is None:
            return self.tokens
        if self.length <= prompt:
            raise ConfigError(
                f"{GENERATION} says max_length {self.length}, and the prompt has {prompt} tokens: say with --tokens "
                "how many more"
            )
        return self.length - prompt


def published_settings(folder: Path, allow: Collection[str] = ()) -> Settings | None:
    """What a folder says; None where it says nothing. allow: keys to go on without."""
    path = folder / GENERATION
    if path.is_file():
        tree = read_json(path)
    else:
        path = folder / CONFIG
        tree = dict(read_json(path)) if path.is_file() else {}
        if all(tree.get(key) is None for key in OLD):
            return None
        tree = {key: tree[key] for key in (*OLD, "eos_token_id") if key in tree}
    c = Reading(tree, str(path))
    try:
        settings = _settings(c)
    except ValueError as error:  # what the parts refuse
        raise InputError(f"{path}: {error}") from None
    for key, neutral in NEUTRAL.items():
        if (value := c.tree.get(key)) not in (None, neutral) and key not in allow:
            raise InputError(
                f"{path}: {key} is {came(value)}, which nothing here does; add --allow {key} to go on without it, "
                "knowing that the tokens may differ"
            )
    c.ignore(*HARMLESS, *NEUTRAL)
    c.done(allow)
    return settings


def _settings(c: Reading) -> Settings:
    def value(key: str, kind: Kind[T], default: T) -> T:
        """null is as absent."""
        found = c.given(key, or_none(kind), None)
        return default if found is None else found

    draws = value("do_sample", FLAG, False)
    penalty = value("repetition_penalty", POSITIVE, 1.0)
    top_k, min_p = value("top_k", WHOLE, 50 if draws else 0), value("min_p", NUMBER, 0.0)
    sampling = Sampling(
        greedy=not draws,
        temperature=value("temperature", NUMBER, 1.0),
        top_k=top_k or None,
        top_p=value("top_p", NUMBER, 1.0),
        min_p=min_p or None,
        repetition_penalty=penalty,
    )
    beams = PublishedBeams(
        beams=value("num_beams", SIZE, 1),
        length_penalty=value("length_penalty", NUMBER, 1.0),
        early_stopping=value("early_stopping", EARLY, False),
        repetition_penalty=penalty,
    )
    if draws and beams.beams > 1:
        raise ValueError("do_sample with num_beams above 1 draws beams, which nothing here does")
    words = value("bad_words_ids", WORDS, ())
    if any(len(word) != 1 for word in words):
        raise ValueError("bad_words_ids bans words of several tokens, which nothing here does")
    ends = value("eos_token_id", one_or_several(WHOLE), ()) if words else ()
    banned = tuple(token for (token,) in words if token not in ends)  # an end is no bad word
    rules = Rules(
        no_repeat=value("no_repeat_ngram_size", WHOLE, 0) or None,
        no_repeat_source=value("encoder_no_repeat_ngram_size", WHOLE, 0) or None,
        min_tokens=value("min_new_tokens", WHOLE, 0),
        min_length=value("min_length", WHOLE, 0),
        first=c.given("forced_bos_token_id", or_none(WHOLE), None),
        last=value("forced_eos_token_id", one_or_several(WHOLE), ()),
        never=banned + value("suppress_tokens", several(WHOLE), ()),
        not_first=value("begin_suppress_tokens", several(WHOLE), ()),
    )
    return Settings(
        sampling,
        beams,
        rules,
        tokens=c.given("max_new_tokens", or_none(SIZE), None),
        length=c.given("max_length", or_none(SIZE), None),
        stop=value("stop_strings", one_or_several(TEXT), ()),
    )


def one_or_several(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """One, or a list."""
    many = several(kind)
    return Kind(
        f"{kind.what}, or {many.what}",
        lambda value: many.read(value) if isinstance(value, list) else (kind.read(value),),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value
