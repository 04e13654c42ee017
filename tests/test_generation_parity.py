"""Generation beside transformers' own `generate`: the same prompts and settings give the same tokens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from golden.cases import CASES
from golden.published import Case, opened, ours, quiet, stored, write
from oracles.published import exact

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.model import Model
from anyformer.generation.beam import PublishedBeams, Search, beam_search
from anyformer.generation.generate import token_rows
from anyformer.generation.prompts import Prompts
from anyformer.generation.rules import Rules
from anyformer.generation.sampling import Sampling

TYPES = ("llama", "gpt2", "gpt_neox", "gptj", "gemma2", "gpt_neo", "t5", "bart")
MODELS = {case.name: case for case in CASES if case.name in TYPES}
LENGTH = 8  # of a prompt, at most
MORE = 9
START = 5  # of a target
ENDS = (7, 19, 23, 31, 44, 52)  # many, so that texts do end


@dataclass(frozen=True)
class Setting:
    """theirs: for generate. how, rules: ours. length: of all prompts; None: each its own, padded on the left."""

    theirs: Mapping[str, Any] = field(default_factory=dict)
    how: Sampling | Search = Sampling(greedy=True)
    rules: Rules | None = None
    ends: tuple[int, ...] = ENDS
    length: int | None = None


FORCED = {
    "forced_bos_token_id": 11,
    "forced_eos_token_id": 7,
    "suppress_tokens": [8, 9, 10, 50],
    "begin_suppress_tokens": [*range(12, 40)],
}
FORCING = Rules(first=11, last=(7,), never=(8, 9, 10, 50), not_first=tuple(range(12, 40)))
SETTINGS = {
    "greedy": Setting(ends=(7,)),
    "penalised": Setting(
        {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
        Sampling(greedy=True, repetition_penalty=1.4),
        Rules(no_repeat=2),
    ),
    "least": Setting({"min_new_tokens": 5, "no_repeat_ngram_size": 1}, rules=Rules(min_tokens=5, no_repeat=1)),
    "forced": Setting(FORCED, rules=FORCING, length=1),
    "beams": Setting({"num_beams": 4}, PublishedBeams()),
    "full": Setting(
        {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0, "min_length": 7, "no_repeat_ngram_size": 2},
        PublishedBeams(beams=3, early_stopping=True, length_penalty=2.0),
        Rules(min_length=7, no_repeat=2),
        length=4,
    ),
    "never": Setting(
        {"num_beams": 4, "early_stopping": "never", "length_penalty": 1.5, "repetition_penalty": 1.3},
        PublishedBeams(early_stopping="never", length_penalty=1.5, repetition_penalty=1.3),
        ends=(7,),
    ),
    "short": Setting(
        {"num_beams": 2, "length_penalty": -0.7, "early_stopping": "never", **FORCED},
        PublishedBeams(beams=2, length_penalty=-0.7, early_stopping="never"),
        FORCING,
        length=1,
    ),
}


@cache
def pair(name: str) -> tuple[Model, Any]:
    """Our model and theirs, of the same weights."""
    case: Case = MODELS[name]
    library = pytest.importorskip("transformers")
    reference = stored(case)
    source = reference.published(case)
    with TemporaryDirectory() as folder, quiet(library), exact():
        write(Path(folder), source.config, source.tensors)
        return ours(case, reference), opened(case, Path(folder))


def drawn(setting: Setting, count: int, seed: int) -> list[list[int]]:
    """Prompts of tokens of which none ends a text."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, LENGTH + 1, count) if setting.length is None else [setting.length] * count
    words = [token for token in range(5, 60) if token not in ENDS]
    return [draw.choice(words, length).tolist() for length in lengths]


def asked(model: Model, rows: list[list[int]]) -> Prompts:
    if isinstance(model, EncoderDecoderModel):
        return Prompts([[START]] * len(rows), [MORE] * len(rows), rows)
    return Prompts(rows, [MORE] * len(rows))


@torch.no_grad()
def mine(model: Model, rows: list[list[int]], setting: Setting) -> tuple[list[list[int]], list[float] | None]:
    """Texts, and what beams compare."""
    prompts = asked(model, rows)
    if isinstance(setting.how, Search):
        found = [best for best, *_ in beam_search(model, prompts, setting.how, end=setting.ends, rules=setting.rules)]
        return [one.ids for one in found], [one.score for one in found]
    columns = token_rows(model, prompts, setting.how, end=setting.ends, rules=setting.rules)
    return [[token for token in row if token is not None] for row in zip(*columns, strict=True)], None


@torch.no_grad()
def theirs(model: Any, rows: list[list[int]], setting: Setting) -> tuple[list[list[int]], list[float] | None]:
    """The same of transformers. An end token is its padding, so that no padding is part of a text."""
    two = model.config.is_encoder_decoder
    longest, pad = max(map(len, rows)), setting.ends[0]
    ids = torch.full((len(rows), longest), pad)
    for row, tokens in enumerate(rows):
        ids[row, slice(len(tokens)) if two else slice(longest - len(tokens), longest)] = torch.tensor(tokens)
    more = {"decoder_start_token_id": START} if two else {}
    with exact():
        said = model.generate(
            ids,
            attention_mask=(ids != pad).long(),
            do_sample=False,
            eos_token_id=list(setting.ends),
            pad_token_id=pad,
            max_new_tokens=MORE,
            return_dict_in_generate=True,
            output_scores=True,
            **setting.theirs,
            **more,
        )
    texts = [list(until(row, setting.ends)) for row in said.sequences[:, 1 if two else longest :].tolist()]
    return texts, said.sequences_scores.tolist() if isinstance(setting.how, Search) else None


def until(row: list[int], ends: tuple[int, ...]) -> Iterator[int]:
    for token in row:
        if token in ends:
            return
        yield token


def compared(name: str, setting: Setting, count: int, seed: int) -> list[list[int]]:
    model, reference = pair(name)
    rows = drawn(setting, count, seed)
    texts, scores = mine(model, rows, setting)
    want, wanted = theirs(reference, rows, setting)
    assert texts == want
    if scores is not None:
        assert scores == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    return texts


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", MODELS)
def test_the_tokens_of_transformers(name: str, setting: Setting) -> None:
    compared(name, setting, 4, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", MODELS)
def test_the_tokens_of_transformers_for_200_prompts(name: str, setting: Setting) -> None:
    texts = [text for seed in range(25) for text in compared(name, setting, 8, seed)]
    assert len({tuple(text) for text in texts}) > 20
    assert len({len(text) for text in texts}) > (1 if setting.rules is not None else 3)
