"""Generation beside transformers' own `generate`: the same prompts and settings give the same tokens."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from generating import decoder, speaking
from golden.cases import CASES
from golden.published import Case, opened, ours, quiet, stored, write
from oracles.published import exact

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.cli.main import main
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.model import Model
from anyformer.data.tokenizers.bytes import Bytes
from anyformer.generation.beam import PublishedBeams, Search, beam_search
from anyformer.generation.generate import generate, token_rows
from anyformer.generation.prompts import Prompts
from anyformer.generation.published import Settings, published_settings
from anyformer.generation.rules import Rules
from anyformer.generation.sampling import Sampling
from anyformer.runs.folder import RunFolder

TYPES = ("llama", "gpt2", "gpt_neox", "gemma2", "t5", "marian apart")
MODELS = {case.name: case for case in CASES if case.name in TYPES}
GREEDY = Sampling(greedy=True)
LENGTH = 8  # of a prompt, at most
MORE = 9
START = 5  # of a target
ENDS = (7, 19, 23, 31, 47, 52)  # many, so that texts do end

MANY = tuple(range(6, 55, 3))  # so many, that it matters when a search stops


@dataclass(frozen=True)
class Setting:
    """theirs: for generate. how, rules: ours. length: of all prompts; None: each its own, padded on the left."""

    theirs: Mapping[str, Any] = field(default_factory=dict)
    how: Sampling | Search = GREEDY
    rules: Rules | None = None
    ends: tuple[int, ...] = ENDS
    length: int | None = None


FORCED: dict[str, Any] = {
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
    # prompts of one length: n-grams of one token would count transformers' padding, here an end, as part of the text
    "least": Setting(
        {"min_new_tokens": 5, "no_repeat_ngram_size": 1}, rules=Rules(min_tokens=5, no_repeat=1), length=5
    ),
    "forced": Setting(FORCED, rules=FORCING, length=1),
    "beams": Setting({"num_beams": 2}, PublishedBeams(beams=2), ends=MANY),
    "full": Setting(
        {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0, "min_length": 7, "no_repeat_ngram_size": 2},
        PublishedBeams(beams=3, early_stopping=True, length_penalty=2.0),
        Rules(min_length=7, no_repeat=2),
        ends=MANY,
        length=4,
    ),
    "never": Setting(
        {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.5, "repetition_penalty": 1.3},
        PublishedBeams(beams=3, early_stopping="never", length_penalty=1.5, repetition_penalty=1.3),
        ends=MANY,
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
        model, library_model = ours(case, reference), opened(case, Path(folder))
    library_model.generation_config = library.GenerationConfig()  # nothing but what is asked for
    return model, library_model


def drawn(setting: Setting, count: int, seed: int) -> list[list[int]]:
    """Prompts of tokens of which none ends a text."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, LENGTH + 1, count) if setting.length is None else [setting.length] * count
    words = [token for token in range(5, 55) if token not in setting.ends]
    return [draw.choice(words, length).tolist() for length in lengths]


def asked(model: Model, rows: Sequence[Sequence[int]], more: int) -> Prompts:
    if isinstance(model, EncoderDecoderModel):
        return Prompts([[START]] * len(rows), [more] * len(rows), rows)
    return Prompts(rows, [more] * len(rows))


@torch.no_grad()
def mine(
    model: Model, rows: Sequence[Sequence[int]], setting: Setting, more: int = MORE
) -> tuple[list[list[int]], list[float] | None]:
    """Texts, and what beams compare."""
    prompts = asked(model, rows, more)
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
    # its cache has as many layers as the encoder has, which may be too few
    more = {"decoder_start_token_id": START, "use_cache": False} if two else {}
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
@pytest.mark.parametrize("name", MODELS)
def test_the_tokens_of_transformers_for_200_prompts(name: str) -> None:
    texts = {
        tuple(text) for setting in SETTINGS.values() for seed in range(25) for text in compared(name, setting, 8, seed)
    }
    assert len(texts) > 100
    assert len({len(text) for text in texts}) > 4


# What a published folder says


def folder(path: Path, **keys: Any) -> Path:
    (path / "generation_config.json").write_text(json.dumps(keys), "utf-8")
    return path


def test_a_published_folder_says_how(tmp_path: Path) -> None:
    assert published_settings(tmp_path) is None
    settings = published_settings(folder(tmp_path, eos_token_id=[2, 7], transformers_version="5.23"))
    assert settings == Settings(Sampling(greedy=True, top_p=1.0), PublishedBeams(beams=1), Rules())
    keys: dict[str, Any] = {
        "num_beams": 4,
        "early_stopping": True,
        "length_penalty": 2.0,
        "repetition_penalty": 1.2,
        "typical_p": 1.0,
    }
    keys |= {"no_repeat_ngram_size": 3, "min_length": 56, "max_length": 142, "bad_words_ids": [[5], [2]]}
    keys |= {"eos_token_id": 2, "stop_strings": "so", "output_scores": False, "num_beam_groups": None, **FORCED}
    settings = published_settings(folder(tmp_path, **keys))
    assert settings is not None
    assert settings.beams == PublishedBeams(early_stopping=True, length_penalty=2.0, repetition_penalty=1.2)
    assert settings.rules == replace(FORCING, never=(5, *FORCING.never), no_repeat=3, min_length=56)
    assert (settings.sampling.repetition_penalty, settings.stop, settings.most(42)) == (1.2, ("so",), 100)
    with pytest.raises(ConfigError, match="max_length 142, and the prompt has 142 tokens: say with --tokens"):
        settings.most(142)
    drawn = published_settings(folder(tmp_path, do_sample=True, top_p=0.9, min_p=0.1, temperature=0.6))
    assert drawn is not None
    assert drawn.sampling == Sampling(temperature=0.6, top_k=50, top_p=0.9, min_p=0.1)


def test_an_old_folder_says_it_in_its_config(tmp_path: Path) -> None:
    config = {"model_type": "bart", "num_beams": 4, "min_length": 5, "max_length": None, "eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    settings = published_settings(tmp_path)
    assert settings == Settings(Sampling(greedy=True, top_p=1.0), PublishedBeams(beams=4), Rules(min_length=5))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "num_beams": None}), "utf-8")
    assert published_settings(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({**config, "typical_p": 0.5}), "utf-8")
    with pytest.raises(InputError, match=re.escape("config.json: typical_p is 0.5 (a number), which nothing here")):
        published_settings(tmp_path)
    folder(tmp_path)  # where there is the newer file, the older one says nothing
    assert published_settings(tmp_path) == Settings(Sampling(greedy=True, top_p=1.0), PublishedBeams(beams=1), Rules())


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"alignment_heads": [[1, 2]]}, "nothing here reads 'alignment_heads'; add --allow alignment_heads"),
        ({"penalty_alpha": 0.6}, "penalty_alpha is 0.6 (a number), which nothing here does; add --allow penalty_alpha"),
        ({"num_beam_groups": 2}, "num_beam_groups is 2 (a whole number), which"),
        ({"bad_words_ids": [[1, 2]]}, "bad_words_ids bans words of several tokens"),
        ({"do_sample": True, "num_beams": 2}, "do_sample with num_beams above 1"),
        ({"early_stopping": 1}, "early_stopping should be"),
        ({"min_length": -1}, "min_length should be a whole number from 0"),
        ({"temperature": -1}, "temperature must be"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_kept_of_a_published_folder_is_refused(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        published_settings(folder(tmp_path, **keys))
    if set(keys) <= {"alignment_heads", "penalty_alpha", "num_beam_groups"}:
        assert published_settings(tmp_path, allow=set(keys)) is not None


def test_rules_that_cannot_be_kept_are_refused() -> None:
    model = decoder(vocabulary=23)
    prompts = Prompts([[1, 2]], [30])
    for search in (GREEDY, PublishedBeams(beams=2)):

        def go(rules: Rules, search: Sampling | Search = search) -> None:
            mine(model, prompts.ids, Setting(how=search, rules=rules, ends=()), more=30)

        with pytest.raises(ValueError, match="the rules leave no token that could come next"):
            go(Rules(no_repeat=1))
        with pytest.raises(ValueError, match="a rule is for token 23; the tokens of this model are from 0 to 22"):
            go(Rules(never=(23,)))
    odd: list[dict[str, Any]] = [{"no_repeat": 0}, {"no_repeat_source": 0}, {"min_tokens": -1}, {"min_length": -1}]
    for wrong in odd:
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least"):
            Rules(**wrong)


def test_the_command_line_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Bytes().train([], [])
    model = speaking(tokenizer).float()
    path = tmp_path / "run"
    with RunFolder.create(
        path, spec=model.spec.to_dict(), recipe="", tokenizer=tokenizer.definition, info={}
    ) as written:
        written.write_weights(model.state_dict())

    def said(*words: str) -> str:
        assert main(["generate", str(path), "the", "--tokens", "9", *words]) == 0
        return capsys.readouterr().out[3:-1]

    folder(path, num_beams=3, no_repeat_ngram_size=1, length_penalty=0.5)
    beams, once = PublishedBeams(beams=3, length_penalty=0.5), Rules(no_repeat=1)
    assert said() == generate(model, "the", tokens=9, beams=beams, rules=once)
    want = replace(beams, early_stopping="never", length_penalty=2.0, beams=2, repetition_penalty=1.5)
    words = ("--early-stopping", "never", "--length-penalty", "2", "--beams", "2", "--repetition-penalty", "1.5")
    assert said(*words) == generate(model, "the", tokens=9, beams=want, rules=once)
    assert said("--greedy", "--no-repeat", "2") == generate(
        model, "the", tokens=9, sampling=GREEDY, rules=Rules(no_repeat=2)
    )
    assert said("--temperature", "2") == generate(model, "the", tokens=9, sampling=Sampling(temperature=2), rules=once)
    (path / "generation_config.json").unlink()
    assert main(["generate", str(path), "the", "--early-stopping", "true"]) == 2
    assert "--early-stopping is what beams are compared by: give --beams too" in capsys.readouterr().err
