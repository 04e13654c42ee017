"""Texts read to be scored, in sliding windows, as streams and with hidden tokens, beside plain loops."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.cases import CASES
from golden.published import opened, ours, quiet, stored, write
from oracles.published import exact
from tasks import TASKS, decoder, encoder, recipe_for, toy_rows, write_rows
from tokenizers import Tokenizer, models, pre_tokenizers

from anyformer.cli.main import main
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.data.corpus import Corpus, Tokenizers
from anyformer.data.token_file import TokenFile
from anyformer.data.tokenizer import TextTokenizer
from anyformer.recipes.schema import Training
from anyformer.training.evaluate import evaluate
from anyformer.training.pseudo import Pseudo
from anyformer.training.reading import Reading, read_through
from anyformer.training.scores import per_token, scored
from anyformer.training.sliding import Sliding
from anyformer.training.streaming import Streaming
from anyformer.training.train import train

LENGTHS = (23, 1, 7, 40, 2, 5)  # of documents
TRAINING = Training(batch=3, length=11)
SPECIAL = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")  # some count positions by what is not 1, or not 3


def words(size: int, special: Sequence[str] = SPECIAL) -> TextTokenizer:
    """Words w5, w6, …; every second one goes on with the word before it."""
    names = [*special, *(f"{'##' * (at % 2)}w{at}" for at in range(len(special), size))]
    backend = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token=names[-1]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([*special])
    return TextTokenizer(backend)


def text_of(lengths: Sequence[int], tokenizer: TextTokenizer) -> TokenFile:
    """Documents of these many tokens, between their begin and end tokens, if any."""
    draw, ids, starts = np.random.default_rng(3), [], []
    before, after = ([] if token is None else [token] for token in (tokenizer.begin, tokenizer.end))
    for length in lengths:
        starts.append(len(ids))
        ids += [*before, *draw.integers(len(tokenizer.special), tokenizer.vocabulary, length).tolist(), *after]
    return TokenFile(np.array(ids, np.uint16), np.array(starts), 500, tokenizer.vocabulary, "", False)


def redrawn(tree: dict[str, Any], vocabulary: int) -> Model:
    model = from_dict(AnyModel, {**tree, "vocabulary": vocabulary}).build(dtype=torch.float64).eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.data.normal_(std=0.5, generator=torch.Generator().manual_seed(number))
    return model


def scores(reading: Reading, model: Model, text: TokenFile, tokenizer: TextTokenizer) -> np.ndarray:
    """The nats of every place; what nobody asked for is NaN."""
    nats, times = np.full(len(text), np.nan), np.zeros(len(text))
    with torch.no_grad():
        for places, found in reading.scores(model, text, tokenizer, TRAINING):
            nats[places] = found
            np.add.at(times, places, 1)
    assert times.max() == 1
    return nats


@torch.no_grad()
def alone(model: Model, ids: Sequence[int]) -> float:
    """The nats of the last of some ids."""
    return -float(model(torch.tensor([ids[:-1]]))[0, -1].log_softmax(-1)[ids[-1]])


def documents(text: TokenFile) -> list[list[int]]:
    return [part.tolist() for part in np.split(text.tokens.astype(int), text.starts[1:])]


@pytest.mark.parametrize("special", [SPECIAL, ()], ids=["marked", "unmarked"])
@pytest.mark.parametrize(("window", "stride"), [(9, 4), (9, 8), (2, 1), (50, 20)])
def test_sliding_windows_are_a_plain_loop(window: int, stride: int, special: Sequence[str]) -> None:
    """Token by token, in the window that holds it first."""
    tokenizer = words(37, special)
    model, text = redrawn(decoder(), 37), text_of(LENGTHS, tokenizer)
    plain = []
    for ids in documents(text):
        nats = [np.nan]
        for at in range(1, len(ids)):
            begin = max(0, -(-(at + 1 - window) // stride)) * stride  # the first window that reaches so far
            assert min(at, window - stride) <= at - begin < window
            nats.append(alone(model, ids[begin : at + 1]))
        plain += nats
    np.testing.assert_allclose(scores(Sliding(window, stride), model, text, tokenizer), plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pattern", ["causal", "causal & window(4)", "causal & (sinks(2) | window(3))"])
def test_a_stream_is_the_window_that_holds_the_document(pattern: str) -> None:
    tokenizer = words(37)
    model, text = redrawn(decoder(pattern), 37), text_of(LENGTHS, tokenizer)
    streamed = scores(Streaming(), model, text, tokenizer)
    np.testing.assert_allclose(streamed, scores(Sliding(60, 30), model, text, tokenizer), rtol=0, atol=1e-10)
    if pattern == "causal & window(4)":  # two layers see 6 tokens back, and a window that leaves so many is enough
        np.testing.assert_allclose(streamed, scores(Sliding(9, 2), model, text, tokenizer), rtol=0, atol=1e-10)
        assert np.nanmax(np.abs(streamed - scores(Sliding(9, 3), model, text, tokenizer))) > 1e-3


@pytest.mark.parametrize("window", [10, 40])
@pytest.mark.parametrize("within", [False, True], ids=["token", "word"])
def test_pseudo_perplexity_is_a_plain_loop(within: bool, window: int) -> None:
    tokenizer = words(37)
    model, text = redrawn(encoder("masked"), 37), text_of(LENGTHS, tokenizer)
    cls, sep, mask = (tokenizer.plain.token_to_id(name) for name in ("[CLS]", "[SEP]", "[MASK]"))
    plain = []
    for marked in documents(text):
        inside, nats = marked[1:-1], []
        for start in range(0, len(inside), window - 2):
            part = inside[start : start + window - 2]
            for at, token in enumerate(part):
                hidden = list(part)
                hidden[at] = mask
                for later in range(at + 1, len(part)):
                    if not within or part[later] % 2 == 0:  # begins another word
                        break
                    hidden[later] = mask
                with torch.no_grad():
                    logits = model(torch.tensor([[cls, *hidden, sep]]))[0, at + 1]
                nats.append(-float(logits.log_softmax(-1)[token]))
        plain += [np.nan, *nats, np.nan]
    np.testing.assert_allclose(scores(Pseudo(window, within), model, text, tokenizer), plain, rtol=0, atol=1e-10)


def test_figures_and_intervals_are_of_documents_and_blocks() -> None:
    tokenizer = words(37)
    model, text = redrawn(decoder(), 37), text_of(LENGTHS, tokenizer)
    nats = scores(Sliding(9, 4), model, text, tokenizer)
    corpus = Corpus(text, text, Tokenizers(tokenizer), "")
    result = read_through(Sliding(9, 4), model, corpus, TRAINING)
    assert result.counts == {"tokens": len(text) - len(LENGTHS), "documents": len(LENGTHS), "bytes": 500}
    assert result.metrics["loss"] == pytest.approx(np.nanmean(nats), abs=1e-10)
    assert result.metrics["perplexity"] == pytest.approx(np.exp(np.nanmean(nats)))
    assert result.metrics["bits_per_byte"] == pytest.approx(np.nansum(nats) / np.log(2) / 500)
    blocks = [np.array(part[at : at + 9]) for part in np.split(nats, text.starts[1:]) for at in range(0, len(part), 9)]
    counts = np.array([np.isfinite(block).sum() for block in blocks])
    sums = np.array([np.nansum(block) for block in blocks])
    again = scored({"nats": sums[counts > 0], "tokens": counts[counts > 0]}, per_token())
    assert result.intervals["loss"] == pytest.approx(again.intervals["loss"], abs=1e-10)
    first = read_through(Sliding(9, 4), model, corpus, TRAINING, batches=1)
    assert first.counts["tokens"] == 16 and "bytes" not in first.counts


@pytest.mark.parametrize(
    ("reading", "model", "match"),
    [
        (lambda: Sliding(9, 0), None, "from 1 to 8"),
        (lambda: Sliding(9, 9), None, "from 1 to 8"),
        (lambda: Sliding(1, 1), None, "at least 2"),
        (lambda: Sliding(9, 4), encoder("masked"), "sees those after it"),
        (lambda: Streaming(), encoder("masked"), "before it"),
        (lambda: Pseudo(), decoder(), "needs an encoder"),
        (lambda: Pseudo(2), encoder("masked"), "at least 3"),
        (lambda: Sliding(9, 4), decoder(position={"kind": "learned", "length": 8}), "positions tell 8 apart"),
        (lambda: Sliding(9, 4), encoder({"kind": "classify", "labels": ["a", "b"]}), "every token"),
    ],
)
def test_what_cannot_be_read_so_is_refused(reading: Any, model: dict[str, Any] | None, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        reading().check(redrawn(model or decoder(), 37), words(37))


def test_texts_that_are_too_short_or_too_long_are_refused() -> None:
    tokenizer, model = words(37, ()), redrawn(decoder(position={"kind": "learned", "length": 8}), 37)
    short = text_of([1, 1], tokenizer)
    with pytest.raises(InputError, match="no document has 2 tokens"):
        read_through(Sliding(4, 2), model, Corpus(short, short, Tokenizers(tokenizer), ""), TRAINING)
    with pytest.raises(InputError, match="has 9 tokens to be read"):
        [*Streaming().scores(model, text_of([10], tokenizer), tokenizer, TRAINING)]
    with pytest.raises(ConfigError, match="no mask token"):
        Pseudo().check(redrawn(encoder("masked"), 37), tokenizer)


def test_the_recipe_of_transformers_documentation_agrees_per_token(tmp_path: Path) -> None:
    """ "Perplexity of fixed-length models": its mean of windows counts each as much; per token it is ours."""
    library = pytest.importorskip("transformers")
    case = next(case for case in CASES if case.name == "gpt2")
    reference = stored(case)
    source = reference.published(case)
    with quiet(library), exact():
        write(tmp_path, source.config, source.tensors)
        model, library_model = ours(case, reference), opened(case, tmp_path)
        ids = torch.from_numpy(np.random.default_rng(1).integers(0, model.spec.vocabulary or 0, (1, 47)))
        window, stride = 12, 5
        means, sums, counts, before = [], 0.0, 0, 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + window, ids.shape[1])
            asked = end - before
            target = ids[:, begin:end].clone()
            target[:, :-asked] = -100
            with torch.no_grad():
                loss = library_model(ids[:, begin:end], labels=target).loss
            count = int((target[:, 1:] != -100).sum())  # the labels are shifted inside
            means.append(loss)
            sums, counts, before = sums + float(loss) * count, counts + count, end
            if end == ids.shape[1]:
                break
    tokenizer = words(60, ())
    text = TokenFile(ids[0].numpy().astype(np.uint16), np.array([0]), 100, 60, "", False)
    nats = scores(Sliding(window, stride), model, text, tokenizer)
    assert counts == 46
    assert np.nanmean(nats) == pytest.approx(sums / counts, abs=1e-9)
    # and the page's own number is the mean over windows of what each scores
    parts, first = [], 1
    for begin in range(0, 47, stride):
        last = min(begin + window, 47)
        parts.append(nats[first:last].mean())
        first = last
        if last == 47:
            break
    assert float(torch.stack(means).mean()) == pytest.approx(np.mean(parts), abs=1e-9)
    assert abs(np.mean(parts) - sums / counts) > 1e-3


MASKED = ("bert", "roberta", "distilbert", "albert", "mpnet", "electra", "modernbert")


@pytest.mark.parametrize("name", MASKED)
def test_pseudo_perplexity_of_published_encoders(name: str, tmp_path: Path) -> None:
    library = pytest.importorskip("transformers")
    case = next(case for case in CASES if case.name == f"{name} masked")
    reference = stored(case)
    source = reference.published(case)
    with quiet(library), exact():
        write(tmp_path, source.config, source.tensors)
        model, library_model = ours(case, reference), opened(case, tmp_path)
        size = model.spec.vocabulary or 0
        tokenizer = words(size)
        text = text_of([9, 4], tokenizer)
        Pseudo().check(model, tokenizer)
        plain = []
        for ids in documents(text):
            nats = []
            for at in range(1, len(ids) - 1):
                hidden = torch.tensor([ids])
                hidden[0, at] = tokenizer.mask
                with torch.no_grad():
                    logits = library_model(hidden).logits[0, at]
                nats.append(-float(logits.log_softmax(-1)[ids[at]]))
            plain += [np.nan, *nats, np.nan]
    np.testing.assert_allclose(scores(Pseudo(), model, text, tokenizer), plain, rtol=0, atol=1e-9)


def run_of(name: str, tmp_path: Path) -> Path:
    paths = (write_rows(tmp_path / f"{side}.jsonl", toy_rows(20, seed)) for seed, side in enumerate(("a", "b")))
    return train(recipe_for(TASKS[name], *paths, steps=2), tmp_path / "run").path


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(run_of("next_token", tmp_path))
    assert main(["evaluate", run, "--window", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"] == evaluate(run, reading=Sliding(8, 4)).metrics
    assert main(["evaluate", run, "--stream"]) == 0
    assert "documents" in capsys.readouterr().out
    for words_ in (["--stride", "3"], ["--window", "8", "--stride", "8"], ["--stream", "--window", "8"]):
        assert main(["evaluate", run, *words_]) == 2
    assert main(["evaluate", run, "--pseudo", "token"]) == 2
    assert "error: " in capsys.readouterr().err


def test_the_command_line_with_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(run_of("masked", tmp_path))
    assert main(["evaluate", run, "--pseudo", "token", "--json"]) == 0
    assert {*json.loads(capsys.readouterr().out)["metrics"]} == {"loss", "pseudo_perplexity"}
    assert main(["evaluate", run, "--pseudo", "word"]) == 0
    assert main(["evaluate", run, "--window", "8"]) == 2


@pytest.mark.needs_shared
@pytest.mark.usefixtures("beside_stories")
def test_the_commands_of_the_page_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.txt").write_text("Once upon a time there was a little dog. " * 40, "utf-8")
    case = next(case for case in CASES if case.name == "roberta masked")
    source = stored(case).published(case)
    (tmp_path / "roberta").mkdir()
    write(tmp_path / "roberta", source.config, source.tensors)
    words(source.config["vocab_size"]).save(tmp_path / "roberta" / "tokenizer.json")
    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text("utf-8")
    section = page.partition("## Perplexity")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ anyformer (.*)$", section, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)) == 0, command
    assert "pseudo perplexity" in capsys.readouterr().out


def test_what_reads_rows_is_not_read_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run_of("classification", tmp_path)), "--stream"]) == 2
    assert "reads running text" in capsys.readouterr().err
