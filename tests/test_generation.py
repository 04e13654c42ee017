"""Generation: what is drawn is what the model says, however prompts are batched, cut, streamed or compiled."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from generating import (
    GREEDY,
    MODELS,
    TEXT,
    decoder,
    even,
    random_prompts,
    recomputed,
    speaking,
    translator,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import anyformer.cli.generate as command
import anyformer.generation.conversation as talking
import anyformer.generation.generate as generation
import anyformer.generation.prompts as reading
from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.cli.main import main
from anyformer.core.errors import InputError, NumericalStop
from anyformer.core.model import Model
from anyformer.data.tokenizer import TextTokenizer
from anyformer.data.tokenizers.bpe import Bpe
from anyformer.data.tokenizers.bytes import Bytes
from anyformer.data.tokenizers.characters import Characters
from anyformer.generation.beam import Beams
from anyformer.generation.conversation import Conversation
from anyformer.generation.generate import generate, generate_all, token_rows, write_all
from anyformer.generation.prompts import Prompts, prompts_of, start
from anyformer.generation.sampling import Sampling
from anyformer.generation.stops import Stops
from anyformer.models.load import load
from anyformer.runs.folder import RunFolder


def columns(model: Model, prompts: list[list[int]], count: int, sampling: Sampling, **more: Any) -> list[list[Any]]:
    """What each row was given."""
    return [list(row) for row in zip(*token_rows(model, even(prompts, count), sampling, **more), strict=True)]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_is_the_argmax_of_a_full_pass_for_every_token(name: str) -> None:
    model = decoder(**MODELS[name])
    said: set[int] = set()
    for prompt in random_prompts(1, 9, 4, 7):
        (row,) = columns(model, [prompt], 14, GREEDY)
        assert row == recomputed(model, prompt, 14)
        said.update(row)
    assert len(said) > 4  # else the model would prove nothing


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=9, top_p=0.95, temperature=1.5)], ids=["greedy", "drawn"])
def test_a_ragged_batch_is_its_rows_alone(name: str, sampling: Sampling) -> None:
    model, prompts = decoder(**MODELS[name]), random_prompts(1, 13, 6, 9)
    together = columns(model, prompts, 10, sampling, seed=7)
    for row, prompt in enumerate(prompts):
        assert columns(model, [prompt], 10, sampling, seed=7 + row) == [together[row]]


@pytest.mark.parametrize("name", MODELS)
def test_a_long_prompt_is_read_in_chunks_with_the_same_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = decoder(**MODELS[name]), random_prompts(20, 3, 11)
    whole = columns(model, prompts, 8, GREEDY)
    read: list[int] = []
    model.register_forward_pre_hook(lambda model, given: read.append(given[0].shape[1]))
    monkeypatch.setattr(reading, "CHUNK", 7)
    assert columns(model, prompts, 8, GREEDY) == whole
    assert read == ([20] if name == "prefix" else [7, 7, 6]) + [1] * 7  # what is seen from both sides comes whole


@pytest.mark.parametrize("name", ["full", "streaming"])
def test_the_compiled_step_draws_what_the_plain_one_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = decoder(**MODELS[name]), random_prompts(5, 2)
    plain = columns(model, prompts, 10, GREEDY)
    compiled: list[bool] = []

    def compile_step(self: Model, backend: str = "inductor", fullgraph: bool = True) -> None:
        compiled.append(True)
        self.stepper = torch.compile(self.step, backend="aot_eager", fullgraph=fullgraph, dynamic=False)

    monkeypatch.setattr(Model, "compile_step", compile_step)
    assert columns(model, prompts, 10, GREEDY) == plain
    assert not compiled  # too short to pay
    monkeypatch.setitem(generation.WORTH_COMPILING, "cpu", 20)
    assert columns(model, prompts, 10, GREEDY) == plain
    assert columns(model, prompts, 10, GREEDY) == plain
    assert len(compiled) == 2
    assert model.stepper is None  # a prompt would be compiled for its length


def test_only_the_step_is_compiled_and_as_often_as_there_are_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts have many lengths; and where more than 8 shapes are compiled, torch raises unless it is told to go on."""
    model, stepped = decoder(), []

    def compile_step(self: Model, backend: str = "inductor", fullgraph: bool = True) -> None:
        def stepper(ids: Tensor, **call: Any) -> Any:
            stepped.append((*ids.shape, torch._dynamo.config.recompile_limit))
            return self.step(ids, **call)

        self.stepper = stepper

    monkeypatch.setattr(Model, "compile_step", compile_step)
    monkeypatch.setitem(generation.WORTH_COMPILING, "cpu", 1)
    for prompt in random_prompts(1, 9, 4):
        assert columns(model, [prompt], 3, GREEDY) == [recomputed(model, prompt, 3)]
    assert stepped == [(1, 1, 256)] * 6


def test_seeds_reproduce_and_differ() -> None:
    model, prompts, hot = decoder(), random_prompts(4), Sampling(temperature=3)
    one = columns(model, prompts, 30, hot, seed=1)
    assert columns(model, prompts, 30, hot, seed=1) == one
    assert columns(model, prompts, 30, hot, seed=2) != one
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert columns(model, prompts, 30, hot, seed=1) == one
    assert torch.equal(torch.get_rng_state(), before)


def test_a_row_stops_at_its_end_token_and_the_others_go_on() -> None:
    model, prompts = decoder(), random_prompts(5, 3)
    free = columns(model, prompts, 12, Sampling(temperature=2), seed=3)
    end = next(token for token in free[0][2:] if token not in free[1])
    at = free[0].index(end)
    first, second = columns(model, prompts, 12, Sampling(temperature=2), seed=3, end=end)
    assert first == [*free[0][:at], *[None] * (12 - at)]
    assert second == free[1]
    (alone,) = columns(model, prompts[:1], 12, Sampling(temperature=2), seed=3, end=end)
    assert alone == [*free[0][:at], None]  # and then it is over


# Where a prompt may end


def test_a_prompt_may_fill_the_context_and_no_more() -> None:
    model = decoder(mixer={"position": "none"}, position={"kind": "learned", "length": 8})
    (full,) = random_prompts(8)
    assert columns(model, [full], 1, GREEDY) == [recomputed(model, full, 1)]
    assert columns(model, [full[:5]], 4, GREEDY) == [recomputed(model, full[:5], 4)]
    for prompt, count in ((full, 2), ([*full, 1], 1), (full[:5], 5), (full * 10, 1)):
        with pytest.raises(ValueError, match=rf"end at 8 tokens; a prompt of {len(prompt)} and {count} more"):
            next(token_rows(model, even([prompt], count), GREEDY))


def test_a_row_that_has_ended_needs_no_positions() -> None:
    """The longest prompt and the most tokens together would not fit, but no row has both."""
    model = decoder(mixer={"position": "none"}, position={"kind": "learned", "length": 12})
    prompts, counts = random_prompts(10, 2, 6), [3, 11, 0]
    rows = list(zip(*token_rows(model, Prompts(prompts, counts), GREEDY), strict=True))
    for prompt, count, row in zip(prompts, counts, rows, strict=True):
        assert list(row) == recomputed(model, prompt, count) + [None] * (11 - count)


def test_an_empty_prompt_needs_a_begin_token() -> None:
    bpe = Bpe(vocabulary=270).train([TEXT], [])
    model = speaking(bpe)
    assert start(bpe, "") == [bpe.begin]
    assert generate(model, "", tokens=3, sampling=GREEDY) == bpe.decode(recomputed(model, start(bpe, ""), 3))
    with pytest.raises(ValueError, match="the prompt is empty and this model has no begin token"):
        generate(speaking(Bytes().train([], [])), "")
    for prompts in ([], [[]], [[1], []]):
        with pytest.raises(ValueError, match="there must be a prompt"):
            next(token_rows(model, even(prompts, 1), GREEDY))


def test_what_cannot_be_generated_from_is_refused() -> None:
    model = speaking(Characters().train([TEXT], []))
    assert generate(model, "the", tokens=0) == ""
    with pytest.raises(ValueError, match="tokens must be at least 0; came -1"):
        generate(model, "the", tokens=-1)
    with pytest.raises(InputError, match="character 'Q'"):
        generate(model, "Q")
    with pytest.raises(InputError, match="surrogate"):
        generate(model, "\ud800")
    model.tokenizer = None
    with pytest.raises(ValueError, match="no tokenizer"):
        generate(model, "the")


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_a_broken_model_says_so(sampling: Sampling) -> None:
    model = decoder()
    nn.init.constant_(next(model.parameters()), torch.nan)
    with pytest.raises(NumericalStop, match="a logit is nan"):
        next(token_rows(model, even([[1]], 1), sampling))


# Text


@pytest.mark.parametrize("spec", [Bytes(), Characters(), Bpe(vocabulary=300)], ids=["bytes", "characters", "bpe"])
def test_pieces_joined_are_the_text(spec: Any) -> None:
    tokenizer = spec.train([TEXT], [])
    model = speaking(tokenizer)
    hot = Sampling(temperature=4)
    pieces: list[str] = []
    text = generate(model, "the cat", tokens=60, sampling=hot, seed=2, show=pieces.append)
    ids = [row[0] for row in token_rows(model, even([start(tokenizer, "the cat")], 60), hot, seed=2, end=tokenizer.end)]
    assert "".join(pieces) == text == tokenizer.decode([token for token in ids if token is not None])
    assert len(pieces) > 10
    assert "" not in pieces
    assert generate_all(model, ["the cat", "mat"], tokens=60, sampling=hot, seed=2) == [
        text,
        generate(model, "mat", tokens=60, sampling=hot, seed=3),
    ]
    assert generate_all(model, ["on", "the cat"], tokens=60, sampling=hot, seed=1)[1] == text


def test_half_a_character_at_the_end_is_flushed() -> None:
    """A model that is made to say the first two of a character's three bytes."""
    tokenizer = Bytes().train([], [])
    model = speaking(tokenizer)
    first, second = tokenizer.encode("日")[:2]
    logits = {1: first, 2: second}

    def say(model: Model, given: tuple[Tensor, ...], out: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        wanted = logits[said.pop(0)]
        return nn.functional.one_hot(torch.full(given[0].shape, wanted), 256).double(), out[1]

    said = [1, 2]
    model.register_forward_hook(say)
    pieces: list[str] = []
    assert generate(model, "x", tokens=2, sampling=GREEDY, show=pieces.append) == "\ufffd"
    assert pieces == ["\ufffd"]


def test_samples_are_rows_of_one_prompt() -> None:
    model = speaking(Characters().train([TEXT], []))
    hot = Sampling(temperature=3, repetition_penalty=3.0)  # of a row's own prompt
    calls: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, given: calls.append(tuple(given[0].shape)))
    texts = generate_all(model, ["the cat", "on"], tokens=9, sampling=hot, samples=3, seed=5)
    assert calls[:2] == [(2, 7), (6, 1)]  # a prompt is read once
    alone = [generate(model, "the cat" if row < 3 else "on", tokens=9, sampling=hot, seed=5 + row) for row in range(6)]
    assert texts == alone
    assert len(set(texts)) == 6
    with pytest.raises(ValueError, match="samples must be at least 1; came 0"):
        generate_all(model, ["on"], samples=0)
    for same in (GREEDY, Sampling(temperature=0)):
        with pytest.raises(ValueError, match="all samples would be the same"):
            generate_all(model, ["on"], sampling=same, samples=2)


# Stop strings


def pushed(stops: Stops, *pieces: str) -> list[str]:
    return [stops.push(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("stop", "pieces", "shown", "rest"),
    [
        ("END", ["a", "E", "N", "E", "ND", "x"], ["a", "", "", "EN", "", ""], ""),
        ("END", ["aEN"], ["a"], "EN"),
        ("aab", ["a", "a", "a", "b"], ["", "", "a", ""], ""),  # begun anew inside of itself
        ("aab", ["xaabaab"], ["x"], ""),
        (["abcd", "bc"], ["a", "b", "c", "d"], ["", "", "a", ""], ""),  # what is complete first
        (["abcd", "bc"], ["abcd"], ["a"], ""),  # wherever the pieces end
        (["bc", "abc"], ["abc"], [""], ""),  # complete at once: the longest
        (["no", "on"], ["a", "n", "n", "o"], ["a", "", "n", ""], ""),
        ("本", ["日", "本"], ["日", ""], ""),
        ([], ["END"], ["END"], ""),
    ],
)
def test_a_stop_string_is_held_back_until_it_is_one_or_is_not(
    stop: Any, pieces: list[str], shown: list[str], rest: str
) -> None:
    stops = Stops(stop)
    assert [stops.push(piece) for piece in pieces] == shown
    assert (stops.flush(), stops.flush()) == (rest, "")


def cut(text: str, stops: list[str]) -> str:
    """By the definition: character by character, until some stop string is complete."""
    for size in range(len(text) + 1):
        if complete := [stop for stop in stops if text[:size].endswith(stop)]:
            return text[: size - max(map(len, complete))]
    return text


@given(st.lists(st.text("ab本", max_size=4)), st.lists(st.text("ab本", min_size=1, max_size=4), max_size=3))
def test_stop_strings_do_not_care_for_pieces(pieces: list[str], stop: list[str]) -> None:
    stops = Stops(stop)
    shown = ""
    for size, piece in enumerate(pieces, 1):
        shown += stops.push(piece)
        so_far = "".join(pieces[:size])
        assert cut(so_far, stop).startswith(shown)
        late = len(cut(so_far, stop)) - len(shown)  # no more is held back than may be needed
        assert stops.over or late == max((n for s in stop for n in range(len(s)) if so_far.endswith(s[:n])), default=0)
    assert shown + stops.flush() == cut("".join(pieces), stop)


@pytest.mark.parametrize("spec", [Bytes(), Characters(), Bpe(vocabulary=300)], ids=["bytes", "characters", "bpe"])
def test_texts_are_cut_at_stop_strings(spec: Any) -> None:
    """Wherever a stop string begins in what would have been written: inside of a token, or of several."""
    tokenizer = spec.train([TEXT], [])
    model, hot = speaking(tokenizer), Sampling(temperature=4)
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    (free, other) = write_all(model, ["the cat", "mat"], tokens=40, sampling=hot, seed=2)
    for at in range(0, len(free[0].text) - 3, 7):
        stop = [free[0].text[at : at + 3], "never so"]
        pieces: list[str] = []
        calls.clear()
        text = generate(model, "the cat", tokens=40, sampling=hot, seed=2, stop=stop, show=pieces.append)
        assert text == "".join(pieces) == cut(free[0].text, stop)
        assert len(calls) == shown_after(tokenizer, free[0].ids, stop[0])  # the prompt, and all tokens but the last
        both = write_all(model, ["the cat", "mat"], tokens=40, sampling=hot, seed=2, stop=stop)
        assert [row[0].text for row in both] == [text, cut(other[0].text, stop)]
        assert both[0][0].ended == "stop"
    assert generate(model, "the cat", tokens=40, sampling=hot, seed=2, stop="never so") == free[0].text
    with pytest.raises(ValueError, match="a stop string must have at least one character"):
        generate(model, "the cat", stop=["a", ""])


def shown_after(tokenizer: TextTokenizer, ids: list[int], text: str) -> int:
    """The number of tokens after which a text has been shown."""
    stream, shown = tokenizer.stream(), ""
    for number, token in enumerate(ids, 1):
        shown += stream.push(token)
        if text in shown:
            return number
    return len(ids)


def test_how_a_text_ended() -> None:
    tokenizer = Bpe(vocabulary=300).train([TEXT], [])
    model, hot = speaking(tokenizer), Sampling(temperature=4)
    ends = set()
    for seed in range(40):
        ((text,),) = write_all(model, ["the"], tokens=30, sampling=hot, seed=seed, stop="t")
        ends.add(text.ended)
        assert text.text == cut(tokenizer.decode(text.ids), ["t"])
        assert text.ended == (
            "stop" if "t" in tokenizer.decode(text.ids) else "length" if len(text.ids) == 30 else "end"
        )
    assert ends == {"stop", "length", "end"}
    assert write_all(model, ["the"], tokens=0)[0][0].ended == "length"


# Encoders


SPECIAL = ("<pad>", "<s>", "</s>")
ENGLISH = ["the cat sat.", "on", "the mat, the dog ran — 日本"]


def bilingual(target: Any = None, source: Any = None) -> EncoderDecoderModel:
    """With a text side: words in, other words out."""
    target = target or Bpe(vocabulary=290, special=SPECIAL).train([TEXT], [])
    model = translator(target.vocabulary, None if source is None else source.vocabulary)
    model.tokenizer, model.source_tokenizer = target, source
    return model


def said(model: Model, source: list[Any], first: int | None, count: int) -> str:
    """Greedy by the definition, up to the end token."""
    assert isinstance(model.tokenizer, TextTokenizer)
    assert first is not None
    ids = recomputed(model, [first], count, source)
    end = model.tokenizer.end
    return model.tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)


def test_an_encoder_reads_the_source_and_the_decoder_begins() -> None:
    one, other = Bpe(vocabulary=290, special=SPECIAL), Bpe(vocabulary=270, special=("</s>",))
    target, source = one.train([TEXT], []), other.train([TEXT], [])
    model = bilingual(target, source)
    assert len({target.begin, target.end, source.end}) == 3
    for text in ENGLISH:
        want = said(model, [*source.encode(text), source.end], target.begin, 12)
        assert generate(model, text, tokens=12) == want  # greedy, where nothing else is said
        assert generate(model, text, tokens=12, sampling=GREEDY) == want
        pieces: list[str] = []
        assert generate(model, text, tokens=12, show=pieces.append) == "".join(pieces) == want
        assert len(pieces) > 3
    assert len({generate(model, text) for text in ENGLISH}) == 3  # it does read them
    # one tokenizer for both sides; no begin token; no end token of the source
    model = bilingual(target)
    assert generate(model, "on", tokens=9) == said(model, [*target.encode("on"), target.end], target.begin, 9)
    model = bilingual(source)
    assert source.begin is None
    assert generate(model, "on", tokens=9) == said(model, [*source.encode("on"), source.end], source.end, 9)
    no_end = Bytes().train([], [])
    model = bilingual(target, no_end)
    assert generate(model, "on", tokens=9) == said(model, no_end.encode("on"), target.begin, 9)


@pytest.mark.parametrize("how", [{}, {"sampling": Sampling(temperature=2)}, {"beams": Beams(beams=3)}], ids=str)
def test_ragged_sources_are_their_rows_alone(how: dict[str, Any]) -> None:
    model = bilingual()
    together = generate_all(model, ENGLISH, seed=4, stop="q", **how)
    assert together == [generate(model, text, seed=4 + row, stop="q", **how) for row, text in enumerate(ENGLISH)]
    several = {**(how or {"sampling": Sampling(temperature=3)}), "samples": 2}
    one_by_one = [generate_all(model, [text], seed=4 + 2 * row, **several) for row, text in enumerate(ENGLISH)]
    assert generate_all(model, ENGLISH, seed=4, **several) == [text for row in one_by_one for text in row]


def test_a_source_is_read_once() -> None:
    model, read = bilingual(), []
    keys = [part for name, part in model.named_modules() if name.endswith("cross.k")]
    for module in (model.encoder, *keys):
        module.register_forward_hook(lambda *_: read.append(1))
    generate_all(model, ENGLISH, sampling=Sampling(temperature=2), samples=2)
    assert len(read) == 3


def test_a_target_may_be_50_tokens_longer_than_its_source() -> None:
    model = bilingual()
    assert isinstance(model.tokenizer, TextTokenizer)
    lengths = [len(model.tokenizer.encode(text)) + 1 for text in ENGLISH]
    asked = prompts_of(model, ENGLISH)
    assert asked.counts == [length + 50 for length in lengths]
    assert prompts_of(model, ENGLISH, 7).counts == [7] * 3
    model.longest = 55  # of the target
    assert prompts_of(model, ENGLISH).counts == [min(length + 50, 55) for length in lengths]
    assert prompts_of(speaking(Bytes().train([], [])), ["on"]).counts == [64]
    texts = [row[0] for row in write_all(model, ENGLISH, sampling=Sampling(temperature=9))]
    assert all(text.ended == "end" or len(text.ids) == text.most for text in texts)


def test_what_cannot_be_translated_is_refused() -> None:
    model = bilingual()
    with pytest.raises(ValueError, match="the source is empty"):
        generate_all(model, ["on", ""])
    with pytest.raises(ValueError, match="neither a begin nor an end token"):
        generate(bilingual(Bytes().train([], [])), "on")
    for wrong, sources in ((model, None), (decoder(), [[1]])):
        with pytest.raises(ValueError, match="needs a source for each prompt"):
            next(token_rows(wrong, Prompts([[1]], [2], sources), GREEDY))
    for prompts in (([[1]], [2, 3], None), ([[1]], [2], [[1], [2]])):
        with pytest.raises(ValueError, match="as many counts, and sources, as prompts"):
            Prompts(*prompts)
    no_head = decoder(vocabulary=23, head={"kind": "tag", "labels": ["a", "b"]})
    with pytest.raises(ValueError, match="does not say what comes next"):
        next(token_rows(no_head, even([[1]], 2), GREEDY))


# Conversations


@pytest.mark.parametrize("name", [name for name in MODELS if name != "prefix"])
@pytest.mark.parametrize(
    "sampling",
    [GREEDY, Sampling(temperature=3), Sampling(temperature=2, repetition_penalty=1.5, frequency_penalty=0.3)],
    ids=["greedy", "drawn", "penalised"],
)
def test_a_conversation_is_a_text_written_at_once(
    name: str, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Bytes().train([], [])
    model = speaking(tokenizer, **MODELS[name])
    prompt = "the cat, or 日本"
    at_once = generate(model, prompt, tokens=20, sampling=sampling, seed=6)
    ids = [row[0] for row in token_rows(model, even([tokenizer.encode(prompt)], 20), sampling, seed=6)]
    monkeypatch.setattr(talking, "CHUNK", 5)
    read: list[int] = []
    model.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    talk = Conversation(model, sampling=sampling, seed=6)
    for part in (prompt[:4], prompt[4:]):
        talk.hear(part)
    shown: list[str] = []
    for tokens in (3, 0, 1, 9, 7):
        shown.append(talk.write(tokens))
    assert talk.ids == tokenizer.encode(prompt) + ids
    assert at_once.startswith("".join(shown))  # half a character may be left
    assert len(at_once) - len("".join(shown)) <= 3
    assert max(read) <= 5
    assert sum(read) == 32 + 33 + 4  # there was room for 32; then for 64, and all was read again


def test_what_is_heard_later_is_gone_on_from() -> None:
    tokenizer = Bytes().train([], [])
    model, talk = speaking(tokenizer), Conversation(speaking(tokenizer), sampling=GREEDY)
    ids: list[int] = []
    for text, count in (("the cat ", 5), ("sat ", 30), ("on 日本", 40)):
        talk.hear(text)
        talk.write(count)
        ids += tokenizer.encode(text)
        ids += recomputed(model, ids, count)
        assert talk.ids == ids


def test_a_conversation_ends_and_goes_on() -> None:
    tokenizer = Bpe(vocabulary=300).train([TEXT], [])
    model, hot = speaking(tokenizer), Sampling(temperature=4)
    seed = next(
        s for s in range(99) if 2 < len(write_all(model, ["on"], tokens=30, sampling=hot, seed=s)[0][0].ids) < 29
    )
    whole = generate(model, "on", tokens=30, sampling=hot, seed=seed)
    talk, shown = Conversation(model, sampling=hot, seed=seed), []
    talk.hear("on")
    assert not talk.ended
    assert talk.write(1, show=shown.append) + talk.write(30, show=shown.append) == whole == "".join(shown)
    assert talk.ended
    assert talk.ids[-1] == tokenizer.end
    assert talk.write(5) == ""
    talk.hear(" the")
    assert not talk.ended
    before = len(talk.ids)
    talk.write(5)
    assert len(talk.ids) > before


def test_a_turn_stops_at_a_stop_string_and_the_next_goes_on() -> None:
    tokenizer = Characters().train([TEXT], [])
    model, hot = speaking(tokenizer), Sampling(temperature=3)
    whole = generate(model, "on", tokens=12, sampling=hot, seed=1)
    talk = Conversation(model, sampling=hot, seed=1)
    talk.hear("on")
    assert talk.write(12, stop=whole[4:6]) == cut(whole, [whole[4:6]])
    at = whole.index(whole[4:6])
    assert talk.write(10 - at) == whole[at + 2 :]
    # what could have become a stop string is shown when the turn is over
    talk = Conversation(model, sampling=hot, seed=1)
    talk.hear("on")
    assert talk.write(5, stop=whole[4] + "?") == whole[:5]


def test_what_cannot_be_talked_to_is_refused() -> None:
    tokenizer = Bytes().train([], [])
    for model in (bilingual(), speaking(tokenizer, **MODELS["prefix"])):
        with pytest.raises(ValueError, match="reads all of a prompt before it writes"):
            Conversation(model)
    talk = Conversation(speaking(tokenizer, mixer={"position": "none"}, position={"kind": "learned", "length": 12}))
    with pytest.raises(ValueError, match="a text to go on from"):
        talk.write(1)
    talk.hear("the cat")
    with pytest.raises(ValueError, match="tokens from 0 up; came -1"):
        talk.write(-1)
    with pytest.raises(ValueError, match="end at 12 tokens; a prompt of 7 and 7 more"):
        talk.write(7)
    assert len(talk.write(6).encode()) > 0


# The command line


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of an untrained model that reads bytes, at most 12 of them."""
    tokenizer = Bytes().train([], [])
    model = speaking(tokenizer, mixer={"position": "none"}, position={"kind": "learned", "length": 12}).float()
    path = tmp_path / "run"
    spec = model.spec.to_dict()
    with RunFolder.create(path, spec=spec, recipe="", tokenizer=tokenizer.definition, info={}) as folder:
        folder.write_weights(model.state_dict())
    return path


def test_generate_by_command(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--tokens", "6", "--temperature", "2", "--top-k", "50", "--top-p", "0.9", "--seed", "4"]
    assert main(["generate", str(run), "the ", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said == {"prompt": "the ", "text": said["text"], "tokens": 6, "ended": "length", "score": None, "seed": 4}
    assert err == ""
    assert main(["generate", str(run), "the ", *words]) == 0
    assert capsys.readouterr().out == f"the {said['text']}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("the "))
    assert main(["generate", str(run), "-", *words]) == 0
    assert capsys.readouterr().out == f"the {said['text']}\n"
    assert main(["generate", str(run), "the ", "--tokens", "0"]) == 0
    assert capsys.readouterr().out == "the \n"
    assert main(["generate", str(run), "the ", "--tokens", "4", "--greedy"]) == 0
    greedy = capsys.readouterr().out
    assert main(["generate", str(run), "the ", "--tokens", "4", "--temperature", "0", "--seed", "9"]) == 0
    assert capsys.readouterr().out == greedy
    changed = ["--set", "body.blocks.*.mixer.pattern=causal & (sinks(1) | window(1))"]
    assert main(["generate", str(run), "the ", "--tokens", "4", "--greedy", *changed]) == 0
    assert capsys.readouterr().out != greedy


def test_samples_beams_and_stops_by_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load(run)
    words = ["generate", str(run), "the ", "--tokens", "6"]
    drawn = ["--min-p", "0.1", "--repetition-penalty", "1.3", "--presence-penalty", "1", "--frequency-penalty", "0.2"]
    sampling = Sampling(min_p=0.1, repetition_penalty=1.3, presence_penalty=1, frequency_penalty=0.2)
    texts = generate_all(model, ["the "], tokens=6, sampling=sampling, samples=3, seed=2)
    assert main([*words, *drawn, "--samples", "3", "--seed", "2"]) == 0
    assert capsys.readouterr().out == "".join(f"the {text}\n" for text in texts)
    assert main([*words, *drawn, "--samples", "3", "--seed", "2", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["text"], one["seed"]) for one in said] == list(zip(texts, (2, 3, 4), strict=True))
    beams = Beams(beams=3, length_penalty=1.1)
    best = write_all(model, ["the "], tokens=6, beams=beams, samples=2)[0]
    assert main([*words, "--beams", "3", "--length-penalty", "1.1"]) == 0
    assert capsys.readouterr().out == f"the {best[0].text}\n"
    assert main([*words, "--beams", "3", "--length-penalty", "1.1", "--samples", "2", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["text"], one["score"]) for one in said] == [(text.text, text.score) for text in best]
    assert main([*words, "--beams", "3"]) == 0
    assert capsys.readouterr().out == f"the {generate(model, 'the ', tokens=6, beams=Beams(beams=3))}\n"
    whole = generate(model, "the ", tokens=6, sampling=GREEDY)
    assert main([*words, "--greedy", "--stop", "never so", "--stop", whole[2:4], "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["text"], said["ended"]) == (cut(whole, [whole[2:4]]), "stop")


@pytest.fixture
def translation(tmp_path: Path) -> Path:
    """A run folder of an untrained model that reads bytes and writes words."""
    target, source = Bpe(vocabulary=290, special=SPECIAL).train([TEXT], []), Bytes().train([], [])
    model = bilingual(target, source).float()
    definitions: dict[str, Any] = {"tokenizer": target.definition, "source_tokenizer": source.definition}
    with RunFolder.create(tmp_path / "run", spec=model.spec.to_dict(), recipe="", info={}, **definitions) as folder:
        folder.write_weights(model.state_dict())
    return tmp_path / "run"


def test_a_translation_is_printed_alone(
    translation: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, words = load(translation), ["generate", str(translation)]
    want = generate_all(model, ENGLISH)
    assert main([*words, ENGLISH[0]]) == 0
    assert capsys.readouterr().out == f"{want[0]}\n"  # greedy, up to 50 tokens more
    assert main([*words, ENGLISH[0], "--repetition-penalty", "1.5"]) == 0  # still greedy
    penalised = generate(model, ENGLISH[0], sampling=Sampling(greedy=True, repetition_penalty=1.5))
    assert capsys.readouterr().out == f"{penalised}\n" != f"{want[0]}\n"
    assert main([*words, ENGLISH[0], "--temperature", "1"]) == 0
    assert capsys.readouterr().out == f"{generate(model, ENGLISH[0], sampling=Sampling())}\n"
    # every line of standard input is a source, and its text one line
    monkeypatch.setattr(command, "LINES", 2)
    lines = [ENGLISH[0], "", *ENGLISH[1:]]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert main([*words, "-"]) == 0
    flat = [" ".join(text.splitlines()) for text in want]
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in (flat[0], "", *flat[1:]))
    monkeypatch.setattr("sys.stdin", io.StringIO("\r\n".join(lines) + "\r\n"))
    drawn = ["--temperature", "3", "--samples", "2", "--seed", "5", "--tokens", "9", "--json"]
    assert main([*words, "-", *drawn]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said.pop(2) == {"prompt": "", "text": ""}
    texts = generate_all(model, ENGLISH, sampling=Sampling(temperature=3), samples=2, seed=5, tokens=9)
    assert [one["text"] for one in said] == [" ".join(text.splitlines()) for text in texts]
    assert [(one["prompt"], one["seed"]) for one in said] == [(ENGLISH[i // 2], 5 + i) for i in range(6)]


def test_a_source_must_be_said(translation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(translation)]) == 2
    assert "the source is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["RUN", "too long a prompt"], 2, "end at 12 tokens; a prompt of 17 and 200 more do not fit"),
        (["RUN"], 2, "the prompt is empty"),
        (["RUN", "a", "--temperature", "-1"], 2, "temperature must be"),
        (["RUN", "a", "--top-k", "0"], 2, "top_k must be at least 1"),
        (["RUN", "a", "--top-p", "7"], 2, "top_p must be"),
        (["RUN", "a", "--min-p", "2"], 2, "min_p must be"),
        (["RUN", "a", "--repetition-penalty", "0"], 2, "repetition_penalty must be"),
        (["RUN", "a", "--presence-penalty", "nan"], 2, "presence_penalty must be"),
        (["RUN", "a", "--beams", "0"], 2, "beams must be at least 1"),
        (["RUN", "a", "--beams", "2", "--length-penalty", "nan"], 2, "length_penalty must be"),
        (["RUN", "a", "--beams", "2", "--temperature", "1", "--top-k", "3"], 2, "leave out --temperature and --top-k"),
        (["RUN", "a", "--beams", "2", "--frequency-penalty", "1", "--greedy"], 2, "leave out --greedy and --frequency"),
        (["RUN", "a", "--beams", "2", "--samples", "3", "--tokens", "3"], 2, "3 of the best are wanted"),
        (["RUN", "a", "--length-penalty", "1"], 2, "give --beams too"),
        (["RUN", "a", "--greedy", "--min-p", "0.1"], 2, "leave out --min-p"),
        (["RUN", "a", "--greedy", "--samples", "2", "--tokens", "3"], 2, "all samples would be the same"),
        (["RUN", "a", "--samples", "0"], 2, "samples"),
        (["RUN", "a", "--stop", ""], 2, "a stop string must have"),
        (["RUN", "a", "--tokens", "-1"], 2, "tokens"),
        (["RUN", "a", "--set", "body.blocks.9.ff=mlp"], 2, "body.blocks"),
        (["RUN", "a", "--set", "width=4"], 2, "none of the weights fits"),
        (["RUN", "a", "--best"], 3, "weights.best.safetensors"),
        (["RUN", "a\ud800"], 3, "half of a surrogate pair"),
        (["nowhere", "a"], 3, "there is no such folder"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_what_the_command_refuses_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    assert main(["generate", *(str(run) if word == "RUN" else word for word in words)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err
