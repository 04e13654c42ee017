"""The evaluation harness: the same requests through its own Hugging Face model and through ours, token for token."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from anyformer.core.errors import ConfigError, InputError

TEXT = (
    "the cat sat on the mat. the dog ran far away, and the cat did not see it! was it a good day? perhaps. "
    "one and one is two. two and two is four. where is the dog? here it is. "
)
CONTEXTS = ("", "the cat ", "the dog ran", "one and one is", " where is  ", "<s>the mat", TEXT * 2, "the dog? here\nit")
CONTINUATIONS = (" sat on", "far away", "two", ".", " it a good day?")
CHAT = (
    "{{ bos_token }}{% for one in messages %}{{ one.role }}: {{ one.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
WITHOUT = find_spec("lm_eval") is None
needs_harness = pytest.mark.skipif(WITHOUT, reason="lm_eval is not installed (pip install 'anyformer[harness]')")


def request(*args: Any) -> Any:
    return SimpleNamespace(args=args)


def tokenizer_of(begin: bool) -> Any:
    """BPE of bytes, which puts <s> before each text, or not."""
    library = pytest.importorskip("transformers")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    if begin:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = library.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on the disk, with weights large enough to have opinions."""
    library = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp(request.param)
    tokenizer = tokenizer_of(begin=request.param == "llama")
    ids: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": len(tokenizer)}
    if request.param == "gpt2":
        config = library.GPT2Config(n_embd=24, n_layer=2, n_head=4, n_positions=64, **ids)
        model = library.GPT2LMHeadModel(config)
    else:
        config = library.LlamaConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            **ids,
        )
        model = library.LlamaForCausalLM(config)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.normal_(std=0.3, generator=torch.Generator().manual_seed(number))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def pair(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Ours and theirs."""
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    from anyformer.training.harness import HarnessModel

    yield HarnessModel(str(folder), batch_size=3, device="cpu"), HFLM(str(folder), batch_size=3, device="cpu")


pytestmark = pytest.mark.filterwarnings("ignore")  # of other packages: what they deprecate is not ours


@needs_harness
def test_encoding_is_theirs(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    for text in (*CONTEXTS, "</s> it", " "):
        for add in (None, False, True):
            assert ours.tok_encode(text, add_special_tokens=add) == theirs.tok_encode(text, add_special_tokens=add)
    assert (ours.prefix_token_id, ours.eot_token_id, ours.max_length) == (0, 1, 64)
    assert theirs.prefix_token_id == 0 and theirs.max_length == 64


@needs_harness
def test_log_likelihoods_are_theirs(pair: tuple[Any, Any]) -> None:
    """Also of all tokens that are text by themselves: some of them are the likeliest."""
    ours, theirs = pair
    requests = [request(context, more) for context in CONTEXTS for more in CONTINUATIONS]
    tokens = {theirs.tok_decode([token]) for token in range(2, 300)}
    texts = (*CONTEXTS[1:5], *TEXT.split()[:8])
    requests += [request(context, token) for context in texts for token in sorted(tokens) if token.isascii()]
    said, wanted = ours.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True)
    for (nats, greedy), (their_nats, their_greedy) in zip(said, wanted, strict=True):
        assert nats == pytest.approx(their_nats, abs=1e-4, rel=1e-5)
        assert greedy is their_greedy
    assert {greedy for _, greedy in said} == {True, False}


@needs_harness
def test_rolling_log_likelihoods_are_theirs(pair: tuple[Any, Any]) -> None:
    """The longest text is several windows."""
    ours, theirs = pair
    requests = [request(text) for text in (TEXT * 3, "the cat", "a", "")]
    wanted = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests) == pytest.approx(wanted, rel=1e-5)


@needs_harness
def test_texts_are_theirs(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    ways = [
        {"until": ["\n"], "max_gen_toks": 12},
        {"until": "a", "max_gen_toks": 12, "do_sample": False},
        {"until": ["th", " i", "q"], "max_new_tokens": 20, "temperature": 0.0},
    ]
    requests = [request(context, dict(way)) for way in ways for context in CONTEXTS[1:] if context[:3] != "<s>"]
    wanted = theirs.generate_until(requests, disable_tqdm=True)
    assert ours.generate_until(requests) == wanted
    alone = [request("<s>the mat", ways[0])]  # in a batch, theirs asks the first text alone how it begins
    assert ours.generate_until(alone) == theirs.generate_until(alone, disable_tqdm=True)
    assert len({*wanted}) > 3


@needs_harness
def test_conversations_are_theirs(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    text = ours.apply_chat_template([{"role": "user", "content": "where is the dog?"}])
    assert text == theirs.apply_chat_template([{"role": "user", "content": "where is the dog?"}])
    assert ours.tok_encode(text) == theirs.tok_encode(text)
    assert ours.tok_encode(text).count(0) == 1
    with pytest.raises(ConfigError, match="gen_prefix"):
        ours.apply_chat_template([], add_generation_prompt=False)


@needs_harness
def test_what_cannot_be_asked_is_refused(folder: Path) -> None:
    from anyformer.training.harness import HarnessModel

    ours = HarnessModel(str(folder), device="cpu")
    with pytest.raises(ConfigError, match="num_beams"):
        ours.generate_until([request("the", {"until": ["."], "max_gen_toks": 4, "num_beams": 3})])
    with pytest.raises(ConfigError, match="leave no room"):
        ours.generate_until([request("the", {"until": ["."]})])
    with pytest.raises(InputError, match="has from 1 to 64 tokens"):
        ours.loglikelihood([request("the cat", "")])
    with pytest.raises(InputError, match="has from 1 to 64 tokens"):
        ours.loglikelihood([request("the cat", TEXT * 3)])
    with pytest.raises(ConfigError, match="batch_size must be a number"):
        HarnessModel(str(folder), batch_size="auto")
    with pytest.raises(ConfigError, match="dtype must be one"):
        HarnessModel(str(folder), dtype="float31")


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
"""
CHOICE = """
doc_to_text: "{{question}}"
doc_to_choice: ["two", "four", "six"]
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
ROLLING = """
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""


@needs_harness
@pytest.mark.slow
def test_a_task_of_one_s_own_end_to_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[Any, Any]
) -> None:
    """From Python and from the command line, with no network; the same numbers as their model's."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    rows = [
        {"question": "one and one is", "answer": 0},
        {"question": "two and two is", "answer": 1},
        {"question": TEXT * 2, "answer": 2},
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for name, kind, rest in (("sums", "multiple_choice", CHOICE), ("roll", "loglikelihood_rolling", ROLLING)):
        head = TASK.format(name=name, data=tmp_path / "sums.jsonl", kind=kind)
        (tmp_path / f"{name}.yaml").write_text(head + rest, "utf-8")
    import lm_eval  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    from anyformer.training.harness import evaluate

    ours = evaluate(folder, ["sums", "roll"], include=tmp_path, device="cpu")["results"]
    theirs = lm_eval.simple_evaluate(
        model=pair[1], tasks=["sums", "roll"], task_manager=TaskManager(include_path=str(tmp_path))
    )["results"]
    for task, metric in (("sums", "acc"), ("roll", "word_perplexity"), ("roll", "bits_per_byte")):
        assert ours[task][f"{metric},none"] == pytest.approx(theirs[task][f"{metric},none"], rel=1e-4)
    words = ["-m", "anyformer.training.harness", "run", "--model", "anyformer", "--model_args", f"path={folder}"]
    words += ["--tasks", "roll", "--include_path", str(tmp_path), "--device", "cpu"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{ours['roll']['bits_per_byte,none']:.4f}" in done.stdout


@pytest.mark.skipif(not WITHOUT, reason="lm_eval is installed")
def test_without_the_harness_it_is_said_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match=r"lm_eval is not installed; try: pip install 'anyformer\[harness\]'"):
        import anyformer.training.harness  # noqa: F401
