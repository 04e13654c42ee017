"""Training: each step does what its equations say, and a run that was stopped ends as one that was not."""

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import anyformer.training.loop as loop
from anyformer.cli.main import main
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.data.batches import Batches
from anyformer.data.corpus import Corpus, build
from anyformer.data.text import Text
from anyformer.models.load import load
from anyformer.recipes.read import read
from anyformer.recipes.schema import Budget
from anyformer.runs.folder import RunFolder
from anyformer.training.budget import Spent, progress, total_steps
from anyformer.training.evaluate import evaluate
from anyformer.training.loop import Report, Trainer
from anyformer.training.measure import measure
from anyformer.training.objectives.next_token import NextToken, token_losses
from anyformer.training.objectives.streams import Window, Windows
from anyformer.training.optimizers.adamw import AdamW
from anyformer.training.optimizers.base import clip
from anyformer.training.scores import Result, scored
from anyformer.training.train import Trained, prepared, train, untrained

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "the", "dog", "run", "far", "away", "from", "home"]
BLOCK = {"kind": "block", "mixer": {"kind": "softmax", "heads": 2, "position": "rotary"}, "ff": {"kind": "gated"}}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Some 3,500 bytes in 60 documents of different lengths, with a few characters of two bytes."""
    draw = np.random.default_rng(3)
    documents = [" ".join(draw.choice(WORDS, 5 + number % 17)) + " é" for number in range(60)]
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(documents), "utf-8")
    return path


def recipe_of(text: Path, *, steps: int = 10, mixer: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """A recipe that trains in tenths of a second; sections are merged into those here."""
    tree: dict[str, Any] = {
        "model": {
            "kind": "decoder",
            "width": 16,
            "body": {"kind": "stack", "blocks": [{**BLOCK, "mixer": {**BLOCK["mixer"], **(mixer or {})}}] * 2},
        },
        "data": {"kind": "text", "path": str(text), "separator": "\n\n", "tokenizer": "characters"},
        "optimizer": {"lr": 0.01},
        "schedule": {"kind": "cosine", "warmup": 3},
        "budget": {"steps": steps},
        "training": {"batch": 4, "length": 12},
        "evaluate": {"every": 4, "batches": 2},
        "snapshots": {"every": 3},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return tree


def trainer_of(tree: dict[str, Any], dtype: torch.dtype = torch.float32) -> Trainer:
    recipe, corpus = prepared(read(tree))
    return Trainer(recipe, untrained(recipe, corpus, "cpu").to(dtype), corpus, lambda report: None)


def windows_of(trainer: Trainer) -> Batches:
    assert isinstance(trainer.feed, Windows)
    return trainer.feed.batches


def measured(trainer: Trainer, **training: Any) -> Result:
    """What the trainer would measure with other windows."""
    return measure(trainer.objective, trainer.model, trainer.corpus, replace(trainer.recipe.training, **training))


def next_token(model: Model, ids: Tensor, documents: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nats (B, T) of ids (B, T + 1), and where something is predicted."""
    documents = torch.zeros_like(ids) if documents is None else documents
    window = Window(ids.numpy(), np.full(len(ids), ids.shape[1] - 1), documents.numpy())
    tensors = NextToken().arranged(window, None, model, None).tensors  # pyright: ignore
    return token_losses(model, tensors), tensors["targets"] != -100


def stop_after(step: int) -> Callable[[Report], None]:
    """Ctrl-C during the report of a step."""

    def report(report: Report) -> None:
        if report.step == step and report.values:
            signal.raise_signal(signal.SIGINT)

    return report


def lines(run: Path) -> list[dict[str, Any]]:
    """The metrics, what clocks say left out."""
    clocks = ("time", "tokens_per_s", "mfu")
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in record.items() if key not in clocks} for record in records]


def same_ending(a: Path, b: Path) -> None:
    for name in ("weights.safetensors", "weights.best.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert lines(a) == lines(b)
    ours, theirs = (RunFolder.open(path).latest_snapshot() for path in (a, b))
    assert ours is not None and theirs is not None
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())


# Resuming


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"mixer": {"dropout": 0.3}},
        {"training": {"accumulate": 3}, "snapshots": {"every": 1}},
        {"training": {"ema": 0.9}},
        {"snapshots": {"every": 2, "keep": 3, "average": 3}},
        {"optimizer": {"kind": "muon"}},
        {"budget": {"steps": None, "tokens": 450}},
        {"training": {"precision": "bfloat16", "checkpointing": True, "clip": 0.1}},
    ],
    ids=["plain", "dropout", "accumulate", "mean", "average", "muon", "tokens", "bfloat16"],
)
@pytest.mark.parametrize("at", [4, 9])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    text: Path, tmp_path: Path, sections: dict[str, Any], at: int
) -> None:
    recipe = recipe_of(text, **sections)
    straight = train(recipe, tmp_path / "a")
    stopped = train(recipe, tmp_path / "b", report=stop_after(at))
    assert (straight.steps, straight.stopped, stopped.steps, stopped.stopped) == (10, None, at, 2)
    torch.manual_seed(99)  # another process would stand elsewhere
    notes: list[str] = []
    assert train(recipe, tmp_path / "b", resume=True, note=notes.append).steps == 10
    assert notes == [f"going on from step {at}"]
    same_ending(tmp_path / "a", tmp_path / "b")


def test_dropout_is_on_in_training_and_off_in_evaluation(text: Path) -> None:
    trainer = trainer_of(recipe_of(text, mixer={"dropout": 0.9}))
    ids = torch.from_numpy(windows_of(trainer).at(0))
    trainer.model.train()
    a, b = (next_token(trainer.model, ids)[0] for _ in range(2))
    assert not torch.equal(a, b)
    assert measured(trainer) == measured(trainer)
    assert trainer.model.training


def test_the_budget_may_be_raised_and_the_first_steps_stay(text: Path, tmp_path: Path) -> None:
    constant = {"schedule": {"kind": "constant"}}
    recipe = recipe_of(text, steps=4)
    recipe.update(constant)
    longer = recipe_of(text, steps=10)
    longer.update(constant)
    train(recipe, tmp_path / "a")
    assert train(longer, tmp_path / "a", resume=True).steps == 10
    train(longer, tmp_path / "b")
    assert (tmp_path / "a" / "weights.safetensors").read_bytes() == (
        tmp_path / "b" / "weights.safetensors"
    ).read_bytes()
    assert read(RunFolder.open(tmp_path / "a").recipe).budget.steps == 10


def test_what_comes_back_can_write(text: Path, tmp_path: Path) -> None:
    from anyformer.generation.generate import generate

    trained = train(recipe_of(text), tmp_path / "run")
    assert not trained.model.training
    assert generate(trained.model, "the", tokens=5) == generate(load(tmp_path / "run"), "the", tokens=5)
    assert trained.metrics["loss"] < math.log(20)


def test_the_default_folder_has_the_name_and_the_date(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = train(recipe_of(text, steps=1), name="some/where/tiny.yaml")
    assert done.path.parent == Path("runs")
    assert done.path.name.startswith("tiny-2")


def test_a_run_says_how_it_was_made(text: Path, tmp_path: Path) -> None:
    done = train(recipe_of(text, steps=1), tmp_path / "run")
    info = RunFolder.open(done.path).info
    assert info["parameters"] == sum(p.numel() for p in done.model.parameters())
    assert {"anyformer", "torch", "python", "machine", "device", "threads", "seed", "command", "data"} <= info.keys()
    assert info["commit"] is None or len(str(info["commit"])) == 40


def test_a_model_is_trained_on_with_its_own_tokenizer(text: Path, tmp_path: Path) -> None:
    """Character 3 of another text is not what character 3 was: the tokens must mean what they meant."""
    first = train(recipe_of(text), tmp_path / "first")
    other = tmp_path / "other.txt"
    other.write_text("\n\n".join("mat on the dog " + "sat"[: n % 3] * n for n in range(40)))
    recipe = recipe_of(other, steps=1, model=None, optimizer={"lr": 1e-9})
    recipe["model"] = {"load": str(tmp_path / "first")}
    second = train(recipe, tmp_path / "second")
    assert second.model.tokenizer.definition == first.model.tokenizer.definition  # pyright: ignore
    for ours, theirs in zip(second.model.parameters(), first.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


# One step


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    trainer.step()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("documents", [False, True], ids=["plain", "documents"])
def test_accumulating_equals_one_larger_batch(text: Path, documents: bool) -> None:
    mixer = {"pattern": "causal & documents"} if documents else {}
    model = {"labels": ["document"]} if documents else {}
    parts = recipe_of(text, mixer=mixer, model=model, training={"batch": 3, "accumulate": 4, "clip": None})
    whole = recipe_of(text, mixer=mixer, model=model, training={"batch": 12, "clip": None})
    a, b = (gradients(trainer_of(tree, torch.float64)) for tree in (parts, whole))
    assert a.keys() == b.keys()
    for name, gradient in a.items():
        torch.testing.assert_close(gradient, b[name], rtol=1e-10, atol=1e-12)


def test_checkpointing_changes_nothing_and_bfloat16_little(text: Path) -> None:
    plain = trainer_of(recipe_of(text))
    again = trainer_of(recipe_of(text, training={"checkpointing": True}))
    rough = trainer_of(recipe_of(text, training={"precision": "bfloat16"}))
    for _ in range(3):
        loss, same, near = (trainer.step()["loss"] for trainer in (plain, again, rough))
        assert loss == pytest.approx(same, abs=1e-6)
        assert loss == pytest.approx(near, abs=0.05)
        assert loss != near
    assert {p.dtype for p in rough.model.parameters()} == {torch.float32}


def test_the_loss_is_the_mean_of_minus_log_probability(text: Path) -> None:
    trainer = trainer_of(recipe_of(text), torch.float64)
    ids = torch.from_numpy(windows_of(trainer).at(0))
    with torch.no_grad():
        losses, predicted = next_token(trainer.model, ids)
        logits = trainer.model(ids[:, :-1]).numpy()
    for row in range(4):
        for at in range(12):
            scores = logits[row, at]
            log_sum = scores.max() + np.log(np.exp(scores - scores.max()).sum())
            assert float(losses[row, at]) == pytest.approx(log_sum - scores[ids[row, at + 1]], abs=1e-10)
    assert bool(predicted.all())
    assert trainer.step()["loss"] == pytest.approx(float(losses.mean()), abs=1e-10)


def test_documents_in_one_row_do_not_see_each_other() -> None:
    """Each document's losses are what it has alone; what begins the next one is not predicted."""
    spec = {
        "kind": "decoder",
        "width": 16,
        "vocabulary": 11,
        "labels": ["document"],
        "body": {
            "kind": "stack",
            "blocks": [{**BLOCK, "mixer": {**BLOCK["mixer"], "pattern": "causal & documents"}}] * 2,
        },
    }
    model = from_dict(AnyModel, spec).build(seed=1, dtype=torch.float64)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    ids = torch.randint(11, (2, 14), generator=torch.Generator().manual_seed(0))
    borders = [[0, 5, 6, 14], [0, 9, 12, 14]]
    documents = torch.stack([torch.bucketize(torch.arange(14), torch.tensor(row[1:]), right=True) for row in borders])
    losses, predicted = next_token(model, ids, documents)
    for row, border in enumerate(borders):
        for begin, end in pairwise(border):
            if end - begin > 1:
                alone, _ = next_token(model, ids[row : row + 1, begin:end], torch.zeros(1, end - begin).long())
                torch.testing.assert_close(losses[row, begin : end - 1], alone[0], rtol=0, atol=1e-10)
            if end < 14:
                assert losses[row, end - 1] == 0
                assert not predicted[row, end - 1]
    assert predicted.sum() == 26 - 4


def test_the_rate_of_every_step_is_the_schedule_s(text: Path) -> None:
    trainer = trainer_of(recipe_of(text, steps=10, schedule={"warmup": 3, "final": 0.2}))
    rates = [trainer.step()["lr"] for _ in range(10)]
    wave = [0.2 + 0.8 * (1 + math.cos(math.pi * (step - 3) / 7)) / 2 for step in range(3, 10)]
    assert rates == pytest.approx([0.01 * scale for scale in (0.25, 0.5, 0.75, *wave)], rel=1e-12)
    assert trainer.optimizer.param_groups[0]["lr"] == rates[-1]


def test_the_optimizer_is_adamw_with_decay_on_matrices_only(text: Path) -> None:
    """Loshchilov & Hutter 2019, algorithm 2, written again in numpy for three steps on changing gradients."""
    model = trainer_of(recipe_of(text), torch.float64).model
    spec = AdamW(lr=0.02, betas=(0.8, 0.9), weight_decay=0.3, eps=1e-6)
    optimizer = spec.make(model)
    want = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    m = {name: np.zeros_like(value) for name, value in want.items()}
    v = {name: np.zeros_like(value) for name, value in want.items()}
    draw = np.random.default_rng(0)
    for step in (1, 2, 3):
        for name, p in model.named_parameters():
            gradient = draw.normal(size=p.shape)
            p.grad = torch.from_numpy(gradient)
            m[name] = 0.8 * m[name] + 0.2 * gradient
            v[name] = 0.9 * v[name] + 0.1 * gradient**2
            decayed = want[name] * (1 - 0.02 * 0.3) if p.dim() == 2 else want[name]
            direction = m[name] / (1 - 0.8**step) / (np.sqrt(v[name] / (1 - 0.9**step)) + 1e-6)
            want[name] = decayed - 0.02 * direction
        optimizer.step()
    assert {p.dim() for p in model.parameters()} == {1, 2}
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), want[name], rtol=0, atol=1e-10)


def test_gradients_are_cut_to_their_norm() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), -1.0)
    norm = math.sqrt(6 * 4 + 2)
    assert clip(layer, None) == pytest.approx(norm)
    assert float(layer.bias.grad[0]) == -1
    assert clip(layer, 100.0) == pytest.approx(norm)
    assert float(layer.bias.grad[0]) == -1
    assert clip(layer, 0.5) == pytest.approx(norm)
    assert float(layer.bias.grad[0]) == pytest.approx(-0.5 / norm, rel=1e-5)
    assert clip(layer, None) == pytest.approx(0.5, rel=1e-5)


# Budgets


def test_whichever_part_of_a_budget_ends_first_counts() -> None:
    budget = Budget(steps=100, tokens=1000, seconds=10.0)
    assert progress(budget, Spent(50, 100, 1.0)) == 0.5
    assert progress(budget, Spent(50, 990, 1.0)) == 0.99
    assert progress(budget, Spent(1, 1, 20.0)) == 1
    assert total_steps(budget, Spent(), 8) == 100
    assert total_steps(budget, Spent(), 20) == 50
    assert total_steps(budget, Spent(4, 32, 2.0), 8) == 20
    assert total_steps(Budget(seconds=1.0), Spent(), 8) == math.inf


def test_a_budget_in_tokens_ends_with_the_step_that_reaches_it(text: Path, tmp_path: Path) -> None:
    done = train(recipe_of(text, budget={"steps": None, "tokens": 48 * 6 + 1}), tmp_path / "run")
    assert done.steps == 7
    assert lines(tmp_path / "run")[-1]["step"] == 7


def test_a_budget_in_seconds_ends_and_the_rate_falls(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that a step takes a second of, whatever the machine is doing."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    rates = []

    def report(report: Report) -> None:
        if report.values:
            rates.append(report.values["lr"])

    make_step = Trainer.step

    def step(self: Trainer) -> dict[str, float]:
        now[0] += 1
        return make_step(self)

    monkeypatch.setattr(Trainer, "step", step)
    done = train(recipe_of(text, budget={"steps": None, "seconds": 12.0}), tmp_path / "run", report=report)
    assert done.steps == 12
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.01 * (0.1 + 0.9 * (1 + math.cos(math.pi * 8 / 9)) / 2))


# Evaluation


def token_by_token(model: Model, corpus: Corpus, length: int) -> tuple[float, int]:
    """Nats and number of all predictions, one forward pass for each, from the start of its window."""
    tokens = corpus.held_out.tokens.astype(np.int64)
    nats = 0.0
    with torch.no_grad():
        for at in range(1, len(tokens)):
            begin = (at - 1) // length * length
            logits = model(torch.from_numpy(tokens[None, begin:at]))[0, -1]
            nats -= float(logits.log_softmax(-1)[tokens[at]])
    return nats, len(tokens) - 1


def test_evaluation_predicts_every_token_once(text: Path) -> None:
    trainer = trainer_of(recipe_of(text), torch.float64)
    trainer.model.eval()
    nats, count = token_by_token(trainer.model, trainer.corpus, 13)
    result = measured(trainer, length=13, batch=3)
    assert result.counts["tokens"] == count
    assert count % 13 != 0
    assert result.metrics["loss"] == pytest.approx(nats / count, abs=1e-10)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-10)
    size = trainer.corpus.held_out.bytes
    assert size > count + 1  # é has two
    assert result.metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-10)
    for name, value in result.metrics.items():
        low, high = result.intervals[name]
        assert low < value < high
    first = measure(
        trainer.objective, trainer.model, trainer.corpus, replace(trainer.recipe.training, length=13, batch=3), 1
    )
    assert first.counts == {"tokens": 39}


def test_documents_are_evaluated_apart(text: Path) -> None:
    tree = recipe_of(text, mixer={"pattern": "causal & documents"}, model={"labels": ["document"]})
    trainer = trainer_of(tree, torch.float64)
    trainer.model.eval()
    held = trainer.corpus.held_out
    result = measured(trainer, length=len(held), batch=2)  # one window: no document is cut
    nats, count = 0.0, 0
    edges = [*held.starts.tolist(), len(held)]
    assert len(edges) > 3
    for begin, end in pairwise(edges):
        ids = torch.from_numpy(held.tokens[begin:end].astype(np.int64))[None]
        losses, _ = next_token(trainer.model, ids, torch.zeros_like(ids))
        nats, count = nats + float(losses.detach().sum()), count + ids.shape[1] - 1
    assert result.counts["tokens"] == count
    assert result.metrics["loss"] == pytest.approx(nats / count, abs=1e-10)
    assert result.intervals == {}
    small = measured(trainer, length=7, batch=5)
    assert small.counts["tokens"] == count
    assert small.metrics["loss"] > 0


LOSS: dict[str, Any] = {"loss": lambda sums: sums["nats"] / sums["tokens"]}


def test_the_interval_covers_the_mean_of_other_texts() -> None:
    """Windows from a known law: 95 % of the intervals hold its mean, within what 200 tries can tell."""
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        sums, counts = draw.gamma(4, 5, 60), np.full(60, 10.0)
        low, high = scored({"nats": sums, "tokens": counts}, LOSS).intervals["loss"]
        covered += low <= 2.0 <= high
    assert 178 <= covered <= 200
    marks = {"nats": draw.gamma(4, 5, 100_001), "tokens": np.full(100_001, 10.0)}
    many = scored(marks, LOSS)  # bounded memory, whatever the text
    assert many.metrics["loss"] == pytest.approx(2.0, abs=0.02)
    assert many.intervals["loss"][1] - many.intervals["loss"][0] == pytest.approx(2 * 1.96 / 100_001**0.5, rel=0.15)


def test_a_hopeless_model_has_the_largest_perplexity_there_is(text: Path) -> None:
    trainer = trainer_of(recipe_of(text))
    for p in trainer.model.parameters():
        nn.init.normal_(p, std=100)
    result = measured(trainer)
    assert result.metrics["loss"] > 1000
    assert 1e300 < result.metrics["perplexity"] < math.inf


def test_evaluate_reads_the_run_s_text_or_another(text: Path, tmp_path: Path) -> None:
    done = train(recipe_of(text, evaluate={"batches": None}), tmp_path / "run")
    own = evaluate(tmp_path / "run")
    assert own.metrics == pytest.approx(done.metrics, abs=1e-6)
    assert evaluate(tmp_path / "run", best=True).metrics["loss"] <= own.metrics["loss"] + 1e-6
    other = tmp_path / "other.txt"
    other.write_text("the mat sat on the dog", "utf-8")
    result = evaluate(tmp_path / "run", str(other))
    assert result.counts["tokens"] == len("the mat sat on the dog") - 1
    corpus = build(Text(path=str(other), held_out=1.0), 0, done.model.tokenizer)  # pyright: ignore
    nats, count = token_by_token(load(tmp_path / "run"), corpus, 12)
    assert result.metrics["loss"] == pytest.approx(nats / count, abs=1e-5)
    changed = evaluate(tmp_path / "run", changes={"body.blocks.*.mixer.pattern": "causal & window(2)"})
    assert changed.metrics["loss"] != own.metrics["loss"]


def test_text_that_changed_is_not_evaluated_as_held_out(text: Path, tmp_path: Path) -> None:
    train(recipe_of(text, steps=1), tmp_path / "run")
    text.write_text(text.read_text("utf-8") + "\n\nthe cat", "utf-8")
    with pytest.raises(InputError, match=r"is not what .* was trained on"):
        evaluate(tmp_path / "run")
    assert evaluate(tmp_path / "run", str(text)).counts["tokens"] > 100


def test_nothing_held_out_is_nothing_measured(text: Path, tmp_path: Path) -> None:
    done = train(recipe_of(text, data={"held_out": 0}), tmp_path / "run")
    assert done.metrics == {}
    assert all("evaluate" not in record for record in lines(done.path))
    with pytest.raises(InputError, match="the text has 0 tokens"):
        evaluate(done.path)


# Loading


def test_load_is_strict_and_takes_changes(text: Path, tmp_path: Path) -> None:
    trained = train(recipe_of(text), tmp_path / "run")
    model = load(tmp_path / "run")
    for (name, ours), theirs in zip(model.state_dict().items(), trained.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not model.training
    assert model.spec == trained.model.spec
    windowed = load(tmp_path / "run", {"body.blocks.*.mixer.pattern": "causal & window(2)"})
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    assert torch.equal(windowed(ids)[:, :2], model(ids)[:, :2])
    assert not torch.equal(windowed(ids)[:, 2:], model(ids)[:, 2:])
    with pytest.warns(UserWarning, match=r"dropped: body\.blocks\.1\.mixer\.q\.weight"):
        load(tmp_path / "run", {"body.blocks": [BLOCK]})
    with pytest.warns(UserWarning, match=r"new: body\.blocks\.0\.ff\.down\.weight"):
        load(tmp_path / "run", {"body.blocks.0.ff": {"kind": "mlp"}})
    with pytest.warns(UserWarning, match=r"dropped: body\.blocks\.0-1\.ff\.up\.weight"):
        load(tmp_path / "run", {"body.blocks.*.ff.hidden": 24})
    with pytest.raises(ConfigError, match="nosuch"):
        load(tmp_path / "run", {"body.nosuch": 1})


def test_weights_that_are_no_numbers_are_told(text: Path, tmp_path: Path) -> None:
    trained = train(recipe_of(text, steps=1), tmp_path / "run")
    with torch.no_grad():
        next(trained.model.parameters())[1, 2:4] = math.nan
    with RunFolder.resume(tmp_path / "run") as run:
        run.write_weights(trained.model.state_dict())
    with pytest.warns(UserWarning, match="has 2 values that are not finite"):
        load(tmp_path / "run")


# The command line


def test_train_and_evaluate_by_command(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "my recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(text)))
    run = str(tmp_path / "a run")
    assert main(["train", str(recipe), "--out", run, "--set", "budget.steps=6", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{run}\n"
    assert "step 4: loss " in err and "step 6: saved " in err and "step 3: saved " in err
    assert len([line for line in err.splitlines() if "on held-out text" in line]) == 2
    assert main(["train", "--resume", "--out", run, "--set", "budget.steps=7", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    shape = json.loads(out)
    assert (shape["run"], shape["steps"], shape["stopped"], err) == (run, 7, None, "")
    assert shape["metrics"].keys() == {"loss", "perplexity", "bits_per_byte"}
    assert main(["train", "--resume", "--out", run]) == 0
    assert f"{run} is finished: its budget was used after 7 steps" in capsys.readouterr().err
    assert main(["evaluate", run, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["metrics"].keys() == figures["intervals"].keys() == {"loss", "perplexity", "bits_per_byte"}
    assert all(low < figures["metrics"][name] < high for name, (low, high) in figures["intervals"].items())
    assert main(["evaluate", run, "--data", str(text), "--batches", "1"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("  ")[0] for line in out.splitlines()[1:]] == ["loss", "perplexity", "bits per byte"]
    assert f"of {4 * 12} tokens" in out
    assert err == ""


def test_a_text_and_a_preset_are_enough(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", str(text), "--model", "llama-tiny", "--out", str(tmp_path / "run"), "--threads", "1"]
    small = ["budget.steps=2", "training.batch=2", "training.length=8", "model.width=16", "data.held_out=0.5"]
    assert main([*words, *(word for change in small for word in ("--set", change))]) == 0
    capsys.readouterr()
    assert read(RunFolder.open(tmp_path / "run").recipe).model.width == 16  # pyright: ignore
    assert main(["evaluate", str(tmp_path / "run"), "--json", "--set", "body.blocks.*.mixer.pattern=causal"]) == 0


def test_the_command_s_threads_win_over_the_recipe_s(text: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        train(recipe_of(text, steps=1, training={"threads": 2}), tmp_path / "run", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_progress_is_a_bar_for_who_watches(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyformer.cli.frame import Frame

    monkeypatch.setattr(Frame, "bar", property(lambda frame: not frame.quiet))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps(recipe_of(text)))
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0
    err = capsys.readouterr().err
    assert "step 10" in err and "tokens/s" in err and "step 9: saved" in err.replace("\n", "")


def test_a_run_is_what_its_recipe_says(text: Path, tmp_path: Path) -> None:
    done: Trained = train(recipe_of(text, seed=5), tmp_path / "a")
    again = train(tmp_path / "a" / "recipe.yaml", tmp_path / "b")
    same_ending(done.path, again.path)
    other = read(recipe_of(text, seed=5))
    third = train(replace(other, seed=6), tmp_path / "c")
    assert third.metrics != done.metrics


def test_a_model_that_sees_what_it_predicts_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"next_token predicts each token from those before it.*'full'"):
        train(recipe_of(text, mixer={"pattern": "full"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_curves_are_written_for_tensorboard_too(text: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen: list[int] = []
    train(recipe_of(text, steps=4), tmp_path / "run", tensorboard=True, report=lambda report: seen.append(report.step))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    assert seen[-1] == 4
    assert events.Scalars("held_out/loss")[-1].value == pytest.approx(lines(tmp_path / "run")[-1]["evaluate"]["loss"])


def test_a_step_that_cannot_be_compiled_runs_as_it_is(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that fails, as inductor does where there is no compiler."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler here")

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda loss: compile(loss, backend=broken))
    plain = trainer_of(recipe_of(text)).step()
    trainer = trainer_of(recipe_of(text, training={"compile": "always"}))
    with pytest.warns(UserWarning, match="cannot be compiled here, and runs as it is: .*no compiler here"):
        assert trainer.step()["loss"] == plain["loss"]
    assert trainer.step()["loss"] < math.inf
