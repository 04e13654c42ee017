"""Generation: what is drawn is what the model says, however prompts are batched, cut, streamed or compiled."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

import anyformer.generation.generate as generation
from anyformer.cli.main import main
from anyformer.core.errors import InputError, NumericalStop
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.data.tokenizer import TextTokenizer
from anyformer.data.tokenizers.bpe import Bpe
from anyformer.data.tokenizers.bytes import Bytes
from anyformer.data.tokenizers.characters import Characters
from anyformer.generation.generate import generate, generate_all, start, token_rows
from anyformer.generation.sampling import Sampling
from anyformer.runs.folder import RunFolder

GREEDY = Sampling(greedy=True)
TEXT = "the cat sat on the mat, the dog ran — 日本 é " * 20
STREAMING = "causal & (sinks(2) | window(5))"


def decoder(mixer: dict[str, Any] | None = None, vocabulary: int = 23, **fields: Any) -> Model:
    """A small model with matrices so large that its choices are clear; tied heads and large biases say one word."""
    block = {"kind": "block", "mixer": {"kind": "softmax", "heads": 2, "position": "rotary", **(mixer or {})}}
    body = {"kind": "stack", "blocks": [block, block]}
    tree = {"kind": "decoder", "width": 16, "vocabulary": vocabulary, "body": body, "head": "language", **fields}
    model = from_dict(AnyModel, tree).build(seed=3, dtype=torch.float64)
    draw = Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(torch.randn(p.shape, generator=draw, dtype=p.dtype) * 0.5)
    return model.eval()


def speaking(tokenizer: TextTokenizer, **fields: Any) -> Model:
    model = decoder(vocabulary=tokenizer.vocabulary, **fields)
    model.tokenizer = tokenizer
    return model


def random_prompts(*lengths: int) -> list[list[int]]:
    draw = np.random.default_rng(1)
    return [draw.integers(23, size=length).tolist() for length in lengths]


def recomputed(model: Model, prompt: list[int], count: int) -> list[int]:
    """Greedy by the definition: the whole text is read again for every token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def columns(model: Model, prompts: list[list[int]], count: int, sampling: Sampling, **more: Any) -> list[list[Any]]:
    """What each row was given."""
    return [list(row) for row in zip(*token_rows(model, prompts, count, sampling, **more), strict=True)]


MODELS = {
    "full": {},
    "streaming": {"mixer": {"pattern": STREAMING}},
    "linear": {"body": {"kind": "stack", "blocks": [{"kind": "block", "mixer": {"kind": "linear", "heads": 2}}] * 2}},
    "learned": {"mixer": {"position": "none"}, "position": {"kind": "learned", "length": 40}},
    "memory": {
        "body": {
            "kind": "rmt",
            "segment": 6,
            "slots": 2,
            "inner": {"kind": "stack", "blocks": [{"kind": "block", "mixer": {"kind": "softmax", "heads": 2}}]},
        }
    },
}


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
    monkeypatch.setattr(generation, "CHUNK", 7)
    assert columns(model, prompts, 8, GREEDY) == whole
    assert read == [7, 7, 6, *[1] * 7]


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
    assert compiled == [True]  # once a model


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
            next(token_rows(model, [prompt], count, GREEDY))


def test_an_empty_prompt_needs_a_begin_token() -> None:
    bpe = Bpe(vocabulary=270).train([TEXT], [])
    model = speaking(bpe)
    assert start(bpe, "") == [bpe.begin]
    assert generate(model, "", tokens=3, sampling=GREEDY) == bpe.decode(recomputed(model, start(bpe, ""), 3))
    with pytest.raises(ValueError, match="the prompt is empty and this model has no begin token"):
        generate(speaking(Bytes().train([], [])), "")
    for prompts in ([], [[]], [[1], []]):
        with pytest.raises(ValueError, match="there must be a prompt"):
            next(token_rows(model, prompts, 1, GREEDY))


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
        next(token_rows(model, [[1]], 1, sampling))


# Text


@pytest.mark.parametrize("spec", [Bytes(), Characters(), Bpe(vocabulary=300)], ids=["bytes", "characters", "bpe"])
def test_pieces_joined_are_the_text(spec: Any) -> None:
    tokenizer = spec.train([TEXT], [])
    model = speaking(tokenizer)
    hot = Sampling(temperature=4)
    pieces: list[str] = []
    text = generate(model, "the cat", tokens=60, sampling=hot, seed=2, show=pieces.append)
    ids = [row[0] for row in token_rows(model, [start(tokenizer, "the cat")], 60, hot, 2, tokenizer.end)]
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


# Sampling


LOGITS = torch.tensor([1.0, -0.5, 2.0, 0.3, 0.3, -4.0, 1.5])


def reference(sampling: Sampling, logits: np.ndarray) -> np.ndarray:
    """Temperature, top-k and top-p, one token at a time."""
    scores = np.exp(logits / sampling.temperature)
    order = sorted(range(len(scores)), key=lambda token: -scores[token])
    kept = order[: sampling.top_k]
    total, reached, result = sum(scores[token] for token in kept), 0.0, np.zeros(len(scores))
    for token in kept:
        if sampling.top_p is None or reached < sampling.top_p:
            result[token] = scores[token] / total
        reached += scores[token] / total
    return result / result.sum()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 2.5},
        {"top_k": 3},
        {"top_k": 99},
        {"top_p": 0.7},
        {"top_p": 0.95, "top_k": 5, "temperature": 1.7},
    ],
    ids=str,
)
def test_draws_have_the_distribution(fields: dict[str, Any]) -> None:
    sampling, draws = Sampling(**fields), 20_000
    want = reference(sampling, LOGITS.double().numpy())
    np.testing.assert_allclose(sampling.probabilities(LOGITS[None])[0].numpy(), want, rtol=1e-6)
    die = Generator().manual_seed(11)
    drawn = torch.cat([sampling.draw(LOGITS.expand(1000, -1), [die] * 1000) for _ in range(draws // 1000)])
    counts = np.bincount(drawn.numpy(), minlength=7)
    possible = want > 0
    assert not counts[~possible].any()
    squares = ((counts - draws * want)[possible] ** 2 / (draws * want[possible])).sum()
    assert squares < 30  # chi-square with 6 degrees of freedom: beyond it once in 25,000 tries


def test_the_edges_of_sampling() -> None:
    likeliest = torch.nn.functional.one_hot(torch.tensor([2]), 7).double()
    for sampling in (
        GREEDY,
        Sampling(temperature=0),
        Sampling(temperature=1e-30),
        Sampling(temperature=5e-324),
        Sampling(top_k=1),
        Sampling(top_p=1e-300),
    ):
        assert torch.equal(sampling.probabilities(LOGITS[None]), likeliest)
    same = torch.softmax(LOGITS[None].double(), -1)
    for sampling in (Sampling(top_p=1.0), Sampling(top_k=7), Sampling(top_k=10**9)):
        torch.testing.assert_close(sampling.probabilities(LOGITS[None]), same)
    masked = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert Sampling(top_k=2).probabilities(masked).tolist() == [[0, 1, 0]]
    huge = Sampling(temperature=1e300).probabilities(LOGITS[None])
    torch.testing.assert_close(huge, torch.full_like(huge, 1 / 7))
    with pytest.raises(NumericalStop):
        Sampling().probabilities(torch.full((1, 3), -torch.inf))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.integers(0, 2**32), st.floats(0.01, 1))
def test_nothing_impossible_is_drawn(logits: list[float], seed: int, top_p: float) -> None:
    sampling = Sampling(top_p=top_p)
    row = torch.tensor([logits])
    token = int(sampling.draw(row, [Generator().manual_seed(seed)]))
    assert sampling.probabilities(row)[0, token] > 0


@pytest.mark.parametrize("thrown", [0.0, 1 - 2**-53])
def test_the_ends_of_the_die_draw_what_can_be_drawn(thrown: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(thrown, dtype=torch.float64))
    logits = torch.tensor([[-torch.inf, *[0.1] * 7, -torch.inf]])
    assert Sampling().draw(logits, [Generator()]).tolist() == [1 if thrown == 0 else 7]


@pytest.mark.parametrize(
    "fields",
    [
        *({"temperature": value} for value in (-1, float("nan"), float("inf"))),
        *({"top_k": value} for value in (0, -3)),
        *({"top_p": value} for value in (0, -0.1, 1.1, float("nan"))),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(fields))} must be .*; came"):
        Sampling(**fields)


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
    assert (said.keys(), said["prompt"], err) == ({"prompt", "text"}, "the ", "")
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


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["RUN", "too long a prompt"], 2, "end at 12 tokens; a prompt of 17 and 200 more do not fit"),
        (["RUN"], 2, "the prompt is empty"),
        (["RUN", "a", "--temperature", "-1"], 2, "temperature must be"),
        (["RUN", "a", "--top-k", "0"], 2, "top_k must be at least 1"),
        (["RUN", "a", "--top-p", "7"], 2, "top_p must be"),
        (["RUN", "a", "--tokens", "-1"], 2, "tokens"),
        (["RUN", "a", "--set", "body.blocks.9.ff=mlp"], 2, "body.blocks"),
        (["RUN", "a", "--set", "width=4"], 3, "do not fit"),
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
