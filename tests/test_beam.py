"""Beam search: the best of all texts where its beams hold them all, and a plain search's result where they do not."""

from math import inf
from typing import Any

import pytest
import torch
from generating import GREEDY, MODELS, decoder, even, next_logits, random_prompts, speaking, translator
from torch import nn

from anyformer.core.errors import NumericalStop
from anyformer.core.model import Model
from anyformer.data.tokenizers.bytes import Bytes
from anyformer.generation.beam import Beams, Hypothesis, beam_search
from anyformer.generation.generate import generate, generate_all, token_rows, write_all
from anyformer.generation.prompts import Prompts
from anyformer.generation.sampling import Sampling

END = 4  # of a vocabulary of 5
ALPHAS = [("gnmt", 0.6), ("gnmt", 0.0), ("gnmt", 1.5), ("gnmt", -0.8), ("power", 1.0), ("power", 0.3)]
Scored = list[tuple[float, list[int]]]


def penalty(beams: Beams, length: int) -> float:
    base = (5 + length) / 6 if beams.penalty == "gnmt" else length
    return base**beams.length_penalty


def exhaustive(model: Model, beams: Beams, prompt: list[int], most: int, end: int | None, **source: Any) -> Scored:
    """Every text there is, best first: all that end in time, and all of `most` tokens that do not."""
    texts: Scored = []

    def go(written: list[int], logprob: float) -> None:
        if len(written) == most:
            texts.append((logprob / penalty(beams, most), written))
            return
        for token, more in enumerate(next_logits(model, prompt, written, **source).log_softmax(0).tolist()):
            if token == end:
                texts.append(((logprob + more) / penalty(beams, len(written) + 1), written))
            else:
                go([*written, token], logprob + more)

    go([], 0.0)
    return sorted(texts, key=lambda text: -text[0])


def plain(model: Model, beams: Beams, prompt: list[int], most: int, end: int | None) -> Scored:
    """Beam search on lists, all read again at each step, to the very end."""
    going: Scored = [(0.0, [])]
    found: Scored = []
    for length in range(1, most + 1):
        more = [
            (logprob + new, [*written, token])
            for logprob, written in going
            for token, new in enumerate(next_logits(model, prompt, written).log_softmax(0).tolist())
        ]
        more = sorted(more, key=lambda text: -text[0])[: 2 * beams.beams]
        ended = [text for text in more if text[1][-1] == end]
        found += [(logprob / penalty(beams, length), ids[:-1]) for logprob, ids in ended]
        going = [text for text in more if text[1][-1] != end]
        if length == most:
            found += [(logprob / penalty(beams, length), ids) for logprob, ids in going]
        going = going[: beams.beams]
    return sorted(found, key=lambda text: -text[0])


def assert_same(found: list[Hypothesis], want: Scored) -> None:
    assert [one.ids for one in found] == [ids for _, ids in want]
    torch.testing.assert_close([one.score for one in found], [score for score, _ in want], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("form", "alpha"), ALPHAS)
def test_enough_beams_are_an_exhaustive_search(form: Any, alpha: float) -> None:
    beams = Beams(beams=5**4, length_penalty=alpha, penalty=form)
    lengths = set()
    for seed in range(3):
        model = decoder(vocabulary=5, seed=seed)
        for prompt in ([1], [3, 0, 2]):
            (found,) = beam_search(model, even([prompt], 4), beams, end=END, best=20)
            assert_same(found, exhaustive(model, beams, prompt, 4, END)[:20])
            lengths.update(len(one.ids) for one in found)
    assert lengths >= {1, 2, 3, 4}


def test_without_an_end_token_all_texts_are_as_long_as_they_may_be() -> None:
    model, beams = decoder(vocabulary=5), Beams(beams=5**3)
    (found,) = beam_search(model, even([[2]], 3), beams, best=125)
    assert_same(found, exhaustive(model, beams, [2], 3, None))


@pytest.mark.parametrize("name", MODELS)
def test_few_beams_find_what_a_plain_search_finds(name: str) -> None:
    """Which goes on to the end, so that stopping early changes nothing; and is right about every state's order."""
    model = decoder(vocabulary=7, **MODELS[name])
    for width, alpha in ((2, 0.6), (3, 1.2), (5, 0.0)):
        beams = Beams(beams=width, length_penalty=alpha)
        for prompt in random_prompts(1, 6, 11, vocabulary=7):
            (found,) = beam_search(model, even([prompt], 9), beams, end=3, best=width)
            assert_same(found, plain(model, beams, prompt, 9, 3)[:width])


def calls_of(model: Model) -> list[tuple[int, ...]]:
    """Filled with the shape of every call's ids."""
    calls: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, given: calls.append(tuple(given[0].shape)))
    return calls


def saying(model: Model, *steps: dict[int, float]) -> None:
    """The model says these tokens with these probabilities, step by step, whatever it reads."""
    left = list(steps)

    def say(_: nn.Module, given: tuple[torch.Tensor, ...], out: tuple[torch.Tensor, Any]) -> tuple[torch.Tensor, Any]:
        logits = torch.full_like(out[0], -inf)
        for token, probability in left.pop(0).items():
            logits[..., token] = torch.tensor(probability).log()
        return logits, out[1]

    model.register_forward_hook(say)


def test_the_search_is_over_when_nothing_can_score_more() -> None:
    """By hand: [end] scores log 0.4 = -0.92; log 0.35 / lp is at best -0.96 with 2 tokens, and -0.88 with 3."""
    for most, want in ((2, []), (3, [0, 0, 0])):
        model = decoder(vocabulary=5)
        calls = calls_of(model)
        saying(model, {END: 0.4, 0: 0.35, 1: 0.25}, {0: 1.0}, {0: 1.0})
        (found,) = beam_search(model, even([[2]], most), Beams(beams=2), end=END)
        assert (found[0].ids, len(calls)) == (want, 1 if want == [] else 3)
    # where shorter texts are favoured, the best that can come is the next token: log 0.55 / lp(2) = -0.70 > log 0.45
    model = decoder(vocabulary=5)
    saying(model, {END: 0.45, 0: 0.55}, {END: 1.0})
    (found,) = beam_search(model, even([[2]], 20), Beams(beams=2, length_penalty=-1.0), end=END)
    assert found[0].ids == [0]


@pytest.mark.parametrize(("form", "turn"), [("gnmt", 0.949), ("power", 0.2487)])
def test_texts_are_compared_by_their_penalty(form: Any, turn: float) -> None:
    """By hand: [end] has 0.4, [0, 1, end] 0.3; they are equal where lp(3) / lp(1) = log 0.3 / log 0.4 = 1.314."""
    for alpha, want in ((turn - 0.01, []), (turn + 0.01, [0, 1])):
        model = decoder(vocabulary=5)
        saying(model, {END: 0.4, 0: 0.6}, {END: 0.5, 1: 0.5}, {END: 1.0})
        beams = Beams(beams=2, length_penalty=alpha, penalty=form)
        (found,) = beam_search(model, even([[2]], 3), beams, end=END)
        assert found[0].ids == want


def test_one_beam_is_greedy() -> None:
    ended = 0
    for seed in range(8):
        model, prompts = decoder(vocabulary=5, seed=seed), random_prompts(1, 4, 6, vocabulary=5)
        rows = zip(*token_rows(model, even(prompts, 12), GREEDY, end=END), strict=True)
        want = [[token for token in row if token is not None] for row in rows]
        for alpha in (0.6, 5.0):
            found = beam_search(model, even(prompts, 12), Beams(beams=1, length_penalty=alpha), end=END)
            assert [one.ids for (one,) in found] == want
        ended += sum(len(ids) < 12 for ids in want)
    assert ended > 3


def test_four_beams_are_never_below_greedy() -> None:
    better = 0
    for seed in range(10):
        model, asked = decoder(vocabulary=12, seed=seed), even(random_prompts(3, 1, 5, 4, vocabulary=12), 12)
        for greedy, beams in zip(*(beam_search(model, asked, Beams(beams=n), end=END) for n in (1, 4)), strict=True):
            assert beams[0].score >= greedy[0].score
            better += beams[0].score > greedy[0].score + 1e-6
    assert better > 10


@pytest.mark.parametrize("name", [*MODELS, "translator"])
def test_a_ragged_batch_is_its_rows_alone(name: str) -> None:
    """Rows of any lengths, each up to its own count, one of them 0."""
    if name == "translator":
        model, prompts = translator(vocabulary=7, source_vocabulary=23), [[2]] * 5
        sources = random_prompts(3, 14, 1, 8, 5)
    else:
        model, prompts = decoder(vocabulary=7, **MODELS[name]), random_prompts(1, 13, 6, 4, 9, vocabulary=7)
        sources = None
    counts = [9, 5, 0, 12, 7]
    together = beam_search(model, Prompts(prompts, counts, sources), Beams(), end=3, best=3)
    for row, (prompt, count) in enumerate(zip(prompts, counts, strict=True)):
        alone = Prompts([prompt], [count], None if sources is None else [sources[row]])
        (found,) = beam_search(model, alone, Beams(), end=3, best=3)
        assert_same(together[row], [(one.score, one.ids) for one in found])
    assert together[2] == [Hypothesis([], 0.0)]


def test_a_source_is_searched_as_a_prompt_is() -> None:
    beams = Beams(beams=5**4)
    for source in random_prompts(1, 7):
        model = translator(vocabulary=5, source_vocabulary=23)
        (found,) = beam_search(model, even([[1]], 4, [source]), beams, end=END, best=20)
        assert_same(found, exhaustive(model, beams, [1], 4, END, source=source)[:20])


def test_a_source_is_read_once() -> None:
    model = translator(vocabulary=7, source_vocabulary=23)
    read: list[str] = []
    keys = [part for name, part in model.named_modules() if name.endswith("cross.k")]
    for module in (model.encoder, *keys):
        module.register_forward_hook(lambda *_: read.append("once"))
    calls = calls_of(model)
    beam_search(model, even([[2]] * 3, 8, random_prompts(3, 9, 5)), Beams(beams=3))
    assert len(read) == 3
    assert calls == [(3, 1), *[(9, 1)] * 7]  # one call a step for all beams of all rows


def test_rows_leave_the_batch_when_they_are_done() -> None:
    model = decoder(vocabulary=7)
    calls = calls_of(model)
    beam_search(model, Prompts(random_prompts(4, 2, 3, vocabulary=7), [2, 6, 4]), Beams(beams=2))
    assert calls == [(3, 4), (6, 1), (4, 1), (4, 1), (2, 1), (2, 1)]


def test_what_is_impossible_is_not_found() -> None:
    model = decoder(vocabulary=5)
    saying(model, {0: 0.7, 1: 0.3}, {END: 1.0})
    (found,) = beam_search(model, even([[2]], 5), Beams(beams=4, length_penalty=0.0), end=END, best=4)
    assert [one.ids for one in found] == [[0], [1]]
    assert [one.score for one in found] == pytest.approx([torch.tensor(p).log().item() for p in (0.7, 0.3)], abs=1e-6)


def test_what_cannot_be_searched_is_refused() -> None:
    model = decoder(vocabulary=5)
    for width in (0, -1):
        with pytest.raises(ValueError, match=f"beams must be at least 1; came {width}"):
            Beams(beams=width)
    for alpha in (6, float("nan"), -inf):
        with pytest.raises(ValueError, match=f"length_penalty must be from -5 to 5; came {alpha}"):
            Beams(length_penalty=alpha)
    for best in (0, 5):
        with pytest.raises(ValueError, match=f"{best} of the best are wanted"):
            beam_search(model, even([[1]], 3), Beams(), best=best)
    nn.init.constant_(next(model.parameters()), torch.nan)
    with pytest.raises(NumericalStop, match="a logit is nan"):
        beam_search(model, even([[1]], 3), Beams())


# Text


def test_the_best_text_is_written() -> None:
    tokenizer = Bytes().train([], [])
    model = speaking(tokenizer)
    prompts = ["the cat", "on"]
    found = beam_search(model, even([tokenizer.encode(text) for text in prompts], 6), Beams(beams=3), best=2)
    texts = [tokenizer.decode(one.ids) for row in found for one in row]
    pieces: list[str] = []
    beams = Beams(beams=3)
    assert generate_all(model, prompts, tokens=6, beams=beams, samples=2, show=pieces.append) == texts
    written = write_all(model, prompts, tokens=6, beams=beams, samples=2)
    assert [[text.score for text in row] for row in written] == [[one.score for one in row] for row in found]
    assert "".join(pieces) == texts[0] == generate(model, "the cat", tokens=6, beams=beams)
    assert generate(model, "the cat", tokens=6, beams=beams, stop=texts[0][2:4]) == texts[0][:2]
    with pytest.raises(ValueError, match="give sampling or beams, not both"):
        generate(model, "the cat", beams=beams, sampling=Sampling())
    with pytest.raises(ValueError, match="4 of the best are wanted"):
        generate_all(model, ["the cat"], beams=beams, samples=4)
