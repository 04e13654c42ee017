"""What is planned is what happens: FLOPs and bytes by hand, and as a real model has them; then budgets and the verb."""

import json
import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tasks import TASKS, recipe_for, toy_rows, write_rows
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import anyformer.training.plan as planning
from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.cli.main import main
from anyformer.cli.plan import lasting, short
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.roles import AnyModel
from anyformer.core.spec import LARGEST, ModelSpec, from_dict
from anyformer.feedforward.mlp import MLPLayer
from anyformer.laws.cases import all_cases
from anyformer.recipes.read import read
from anyformer.recipes.schema import Budget, Training
from anyformer.training.budget import Spent, in_tokens, progress, total_steps
from anyformer.training.flops import Sketch, peak
from anyformer.training.plan import Plan
from anyformer.training.train import train

CPU = torch.device("cpu")


def block(**more: Any) -> dict[str, Any]:
    mixer = {"kind": "softmax", "heads": 6, "kv_heads": 2, "head_size": 8, "position": "rotary"}
    return {"kind": "block", "mixer": mixer, "ff": {"kind": "gated", "hidden": 28}, **more}


def decoder_of(blocks: int = 3, **more: Any) -> ModelSpec:
    tree = {"kind": "decoder", "vocabulary": 37, "width": 20, "body": {"kind": "stack", "blocks": [block()] * blocks}}
    return from_dict(AnyModel, {**tree, **more})


def translator() -> ModelSpec:
    reader = block(mixer={"kind": "softmax", "heads": 4, "pattern": "full"}, ff={"kind": "mlp", "hidden": 36})
    writer = block(cross={"kind": "cross", "heads": 5, "head_size": 6})
    sides = {"encoder": {"kind": "stack", "blocks": [reader] * 2}, "decoder": {"kind": "stack", "blocks": [writer] * 3}}
    return from_dict(AnyModel, {"kind": "encoder_decoder", "vocabulary": 37, "width": 20, **sides})


def counted(spec: ModelSpec, rows: int, length: int, precision: str = "float32") -> tuple[int, int]:
    """FLOPs and kept bytes of a real pass, by a real model's own loss."""
    model = spec.build().train()
    length, source = (length - length // 2, length // 2) if isinstance(model, EncoderDecoderModel) else (length, 0)
    ids, kept = torch.ones(rows, length, dtype=torch.long), {}
    own = {p.data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            kept[memory.data_ptr()] = memory  # held, so that no other tensor gets its place
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        if isinstance(model, EncoderDecoderModel):
            vectors = model.encode(torch.ones(rows, source, dtype=torch.long))
            losses = model.losses(ids, ids, sources={"source": vectors})
        else:
            losses = model.losses(ids, ids)
    assert losses.requires_grad
    return counter.get_total_flops(), sum(memory.nbytes() for memory in kept.values())


# Arithmetic


@pytest.mark.parametrize("head", ["tied", "language"])
def test_a_decoder_s_flops_by_hand(head: str) -> None:
    """6 a weight that multiplies and token, and 12 a layer, width of the queries and token that could be seen."""
    length, width, queries, keys, hidden = 24, 20, 48, 16, 28
    weights = 3 * (width * (queries + 2 * keys + queries) + 3 * width * hidden) + 37 * width
    by_hand = 6 * weights + 12 * 3 * queries * length
    sketch = Sketch(decoder_of(head=head))
    forward = sketch.forward(5, length)
    assert forward is not None and forward.tokens == 5 * length
    assert sketch.flops_a_token(forward, False) == by_hand
    assert sketch.flops_a_token(forward, True) == by_hand * 4 / 3
    gains = (2 * 3 + 1) * width * 2  # of the LayerNorms, with their biases
    assert sketch.parameters == weights + gains + (0 if head == "tied" else 37 * width)


def test_an_encoder_and_decoder_s_flops_by_hand() -> None:
    """A row of 22 + 23 tokens: the encoder's weights meet the first, the decoder's the others; cross attention both."""
    width, source, target = 20, 22, 23
    reader = 2 * (4 * width * width + 2 * width * 36)
    writer = 3 * (width * (48 + 2 * 16 + 48) + 3 * width * 28 + 2 * 30 * width) + 37 * width  # cross: q and o alone
    keys_of_source = 3 * 2 * 30 * width
    products = 2 * 2 * width * source**2 + 3 * 2 * 48 * target**2 + 3 * 2 * 30 * source * target
    forward = Sketch(translator()).forward(1, source + target)
    assert forward is not None
    assert forward.flops == 2 * ((reader + keys_of_source) * source + writer * target + products)


def test_experts_are_counted_as_they_are_met() -> None:
    """4 experts of which 1 or 2 read a token; the router reads all."""
    flops = {}
    for top in (1, 2):
        ff = {"kind": "experts", "count": 4, "top": top, "expert": {"kind": "mlp", "hidden": 28}}
        forward = Sketch(decoder_of(body={"kind": "stack", "blocks": [block(ff=ff)] * 3})).forward(2, 24)
        assert forward is not None
        flops[top] = forward.flops
    assert flops[2] - flops[1] == 2 * 48 * 3 * (2 * 20 * 28)
    dense = Sketch(decoder_of(body={"kind": "stack", "blocks": [block(ff={"kind": "mlp", "hidden": 28})] * 3}))
    forward = dense.forward(2, 24)
    assert forward is not None
    assert flops[1] - forward.flops == 2 * 48 * 3 * (4 * 20)


DECLARATIONS = {
    "decoder": decoder_of(),
    "window": decoder_of(body={"kind": "stack", "blocks": [block(mixer={**block()["mixer"], "pattern": "window(5)"})]}),
    "alibi": decoder_of(body={"kind": "stack", "blocks": [block(mixer={**block()["mixer"], "position": "alibi"})]}),
    "capped": decoder_of(body={"kind": "stack", "blocks": [block(mixer={**block()["mixer"], "softcap": 3.0})]}),
    "dropout": decoder_of(body={"kind": "stack", "blocks": [block(mixer={**block()["mixer"], "dropout": 0.3})]}),
    "linear": decoder_of(body={"kind": "stack", "blocks": [block(mixer={"kind": "linear", "heads": 4})]}),
    "documents": decoder_of(labels=["document"]),
    "positions": decoder_of(position={"kind": "learned", "length": 130}),
    "translator": translator(),
}


@pytest.mark.parametrize("name", DECLARATIONS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_sketch_does_and_keeps_what_a_real_model_does(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Sketch(DECLARATIONS[name]).forward(3, 70, precision)
    assert forward is not None
    assert (forward.flops, forward.kept) == counted(DECLARATIONS[name], 3, 70, precision)


def test_every_part_can_be_counted() -> None:
    forwards = {case.name: Sketch(case.model.spec).forward(2, 12) for case in all_cases()}
    assert not [name for name, forward in forwards.items() if forward is None or not forward.flops]


def test_what_depends_on_values_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = Sketch(decoder_of(body={"kind": "stack", "blocks": [block(ff={"kind": "mlp", "hidden": 28})]}))
    real = MLPLayer.forward
    monkeypatch.setattr(MLPLayer, "forward", lambda self, x, ctx, state=None: real(self, x * int(x.sum()), ctx, state))
    assert sketch.forward(2, 12) is None
    assert sketch.flops_a_token(None, False) == 6 * sketch.parameters
    assert sketch.flops_a_token(None, True) == 8 * sketch.parameters


def test_a_sketch_takes_nothing_and_leaves_nothing() -> None:
    """No memory, no draws from the generator, no compiler's flag."""
    before, memory = torch.get_rng_state(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wide = decoder_of(blocks=4, width=8192, vocabulary=32_000)
    sketch = Sketch(wide)
    assert sketch.forward(64, 4096) is not None and sketch.cache(4096)
    mixer = {**block()["mixer"], "dropout": 0.5}
    assert Sketch(decoder_of(body={"kind": "stack", "blocks": [block(mixer=mixer)]})).forward(2, 9)
    assert torch.equal(before, torch.get_rng_state())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # kB
    assert not torch.compiler.is_compiling()


# Memory


def test_activations_that_are_computed_again() -> None:
    """Three blocks: what is kept outside of them, their inputs, and what one of them keeps beside its input."""
    kept = [Sketch(decoder_of(blocks)).forward(4, 32) for blocks in (1, 2)]
    assert kept[0] is not None and kept[1] is not None
    one, stream = kept[1].kept - kept[0].kept, 4 * 32 * 20 * 4
    sketch, training = Sketch(decoder_of(3)), Training(batch=4, checkpointing=True)
    whole = sketch.forward(4, 32)
    assert whole is not None and one > 4 * stream
    assert sketch.activations(whole, replace(training, checkpointing=False)) == whole.kept == kept[0].kept + 2 * one
    assert sketch.activations(whole, training) == (kept[0].kept - one) + 3 * stream + (one - stream)


def test_a_cache_by_hand() -> None:
    """Keys and values in float32, and where each token is: a time and a coordinate."""

    def growth(**mixer: Any) -> float | None:
        sketch = Sketch(decoder_of(body={"kind": "stack", "blocks": [block(mixer={**block()["mixer"], **mixer})] * 3}))
        short, long = sketch.cache(64), sketch.cache(128)
        return None if short is None or long is None else (long - short) / 64

    a_layer = 2 * 2 * 8 * 4 + 8 + 8
    assert growth() == 3 * a_layer
    assert growth(pattern="causal & window(16)") == 0
    assert growth(pattern="full") is None
    recurrent = Sketch(decoder_of(body={"kind": "stack", "blocks": [block(mixer={"kind": "linear", "heads": 4})]}))
    assert recurrent.cache(64) == recurrent.cache(6400) is not None


def test_a_cache_is_what_a_state_holds() -> None:
    window = {**block()["mixer"], "pattern": "causal & window(5)"}
    windowed = decoder_of(body={"kind": "stack", "blocks": [block(mixer=window)]})
    for spec in (decoder_of(), windowed, DECLARATIONS["linear"]):
        assert Sketch(spec).cache(40) == spec.build().init_state(1, capacity=40).nbytes


# This machine


def test_the_peak_is_measured_once() -> None:
    assert peak(CPU, "float32") == peak(CPU, "float32") > 1e6


# Budgets


def test_flops_buy_tokens() -> None:
    budget = in_tokens(Budget(flops=7e6), 1000.0)
    assert budget == Budget(tokens=7000)
    assert progress(budget, Spent(10, 1750, 1.0)) == 0.25
    assert total_steps(budget, Spent(), 70) == 100
    assert in_tokens(Budget(flops=7e6, tokens=500, steps=3), 1000.0) == Budget(tokens=500, steps=3)
    assert in_tokens(Budget(flops=7e6, tokens=9000), 1000.0) == Budget(tokens=7000)
    assert in_tokens(Budget(flops=1.0), 1000.0) == Budget(tokens=1)
    assert in_tokens(Budget(flops=1e30), 1000.0) == Budget(tokens=LARGEST)
    unchanged = Budget(steps=5)
    assert in_tokens(unchanged, 1000.0) is unchanged


# Plans


def text_recipe(path: Path, **sections: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "model": decoder_of(vocabulary=None).to_dict(),
        "data": {"kind": "text", "path": str(path), "tokenizer": {"kind": "bpe", "vocabulary": 300}},
        "budget": {"steps": 7},
        "training": {"batch": 4, "length": 16, "accumulate": 3},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return tree


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on a mat and saw the dog run far away from home. " * 60)
    return path


def prepared_of(tree: dict[str, Any]) -> tuple[Any, Any, Any]:
    recipe, corpus = planning.prepared(read(tree))
    return recipe, planning.untrained(recipe, corpus, "cpu"), corpus


def plan_of(tree: dict[str, Any]) -> Plan:
    return planning.plan(read(tree), CPU)


def test_a_plan_of_what_can_be_tried(text: Path) -> None:
    plan = plan_of(text_recipe(text, training={"ema": 0.9}))
    model = read(text_recipe(text)).model
    vocabulary = planning.prepared(read(text_recipe(text)))[0].model.vocabulary
    assert vocabulary is not None and vocabulary < 300  # a short text runs out of pairs
    built = replace(model, vocabulary=vocabulary).build()
    assert plan.parameters == sum(p.numel() for p in built.parameters())
    assert plan.outside_tables == plan.parameters - vocabulary * 20
    assert plan.weights == plan.gradients == plan.ema == plan.optimizer / 2 == 4 * plan.parameters
    assert (plan.row, plan.tokens_a_step, plan.steps, plan.tokens) == (16, 4 * 16 * 3, 7, 7 * 4 * 16 * 3)
    assert plan.flops == plan.tokens * plan.flops_a_token
    assert 1 <= plan.measured <= planning.STEPS and not plan.notes and plan.counted
    assert plan.minutes == pytest.approx(plan.tokens / plan.tokens_per_s / 60)
    assert plan.mfu == pytest.approx(plan.tokens_per_s * plan.flops_a_token / plan.peak)


def test_a_trial_is_short_and_leaves_its_first_step_out(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, times = [0.0], [0.0]

    def step(trainer: object) -> None:
        clock[0] += times.pop(0)

    monkeypatch.setattr(planning.Trainer, "step", step)
    monkeypatch.setattr(planning.time, "monotonic", lambda: clock[0])
    recipe, _, corpus = prepared_of(text_recipe(text))
    times[:] = [9.0] + [0.7] * 20
    assert planning._trial(recipe, corpus, CPU) == (5, pytest.approx(0.7))  # no other begins after 3 seconds
    times[:] = [9.0] + [0.01] * 20
    assert planning._trial(recipe, corpus, CPU) == (planning.STEPS, pytest.approx(0.01))


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"tokens": 1000}, 6),
        ({"steps": 9, "tokens": 1000}, 6),
        ({"steps": 2, "tokens": 1000}, 2),
        ({"flops": 7e7}, 3),
        ({"seconds": 8.0, "steps": None}, 4),
    ],
    ids=str,
)
def test_the_steps_of_a_budget(text: Path, budget: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is of 192 tokens, of 0.14 MFLOPs each (by hand above), and takes 2.5 seconds."""
    monkeypatch.setattr(planning, "_trial", lambda *_: (5, 2.5))
    plan = plan_of(text_recipe(text, budget={"steps": None, **budget}))
    assert (plan.steps, plan.minutes) == (steps, steps * 2.5 / 60)


def test_a_run_ends_where_its_plan_says(text: Path, tmp_path: Path) -> None:
    tree = text_recipe(text, budget={"steps": None, "flops": 7e7}, training={"accumulate": 1})
    plan = plan_of(tree)
    assert train(tree, tmp_path / "run").steps == plan.steps == math.ceil(7e7 / plan.flops_a_token / 64) == 8


def test_a_plan_without_data(tmp_path: Path) -> None:
    plan = plan_of(text_recipe(tmp_path / "gone.txt"))
    assert plan.measured == 0 and plan.mfu == pytest.approx(planning.STATED)
    assert plan.parameters - plan.outside_tables == 300 * 20
    assert (plan.row, plan.tokens_a_step) == (16, 4 * 16 * 3)
    assert len(plan.notes) == 1 and "planned without data" in plan.notes[0] and "gone.txt" in plan.notes[0]
    byte = plan_of(text_recipe(tmp_path / "gone.txt", data={"tokenizer": "bytes"}))
    assert byte.parameters - byte.outside_tables == 256 * 20
    told = plan_of(text_recipe(tmp_path / "gone.txt", data={"tokenizer": "characters"}, model={"vocabulary": 77}))
    assert told.parameters - told.outside_tables == 77 * 20
    with pytest.raises(
        InputError, match=r"gone.txt.*or set model.vocabulary, since only data says how many characters"
    ):
        plan_of(text_recipe(tmp_path / "gone.txt", data={"tokenizer": "characters"}))


def test_seventy_billion_parameters(tmp_path: Path) -> None:
    """Llama 2 70B (Touvron et al. 2023): its blocks counted on 2 of 80, which are alike."""
    mixer = {"kind": "softmax", "heads": 64, "kv_heads": 8, "position": "rotary"}
    part = {
        "kind": "block",
        "mixer": mixer,
        "ff": {"kind": "gated", "hidden": 28672},
        "residual": {"kind": "pre", "norm": "rms"},
    }
    plans = []
    for blocks in (1, 2):
        body = {"kind": "stack", "norm": "rms", "blocks": [{"repeat": blocks, "block": part}]}
        tree = {
            "model": {"kind": "decoder", "width": 8192, "vocabulary": 32000, "head": "language", "body": body},
            "data": {"kind": "text", "path": str(tmp_path / "gone.txt")},
            "budget": {"tokens": 2e12},
            "training": {"batch": 4, "length": 4096, "precision": "bfloat16"},
        }
        plans.append(plan_of(tree))
    one, two = plans
    assert one.parameters + 79 * (two.parameters - one.parameters) == 68_976_648_192
    assert two.steps == math.ceil(2e12 / (4 * 4096)) and two.measured == 0


@pytest.mark.parametrize(
    "name", ["seq2seq", "two_tokenizers", "masked", "classification", "contrastive", "span_corruption"]
)
def test_every_kind_of_objective_can_be_planned(name: str, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", toy_rows(60, 1))
    held_out = write_rows(tmp_path / "held_out.jsonl", toy_rows(20, 2))
    tree = recipe_for(TASKS[name], train, held_out)
    plan = plan_of(tree)
    assert plan.counted and plan.measured and not plan.notes
    trainer = planning.Trainer(*prepared_of(tree), lambda report: None)
    assert plan.tokens_a_step == round(trainer.tokens_per_step)
    assert plan.parameters == sum(p.numel() for p in trainer.model.parameters())


def test_what_cannot_be_trained_cannot_be_planned(text: Path, tmp_path: Path) -> None:
    full = decoder_of(body={"kind": "stack", "blocks": [block(mixer={**block()["mixer"], "pattern": "full"})]})
    for path in (text, tmp_path / "gone.txt"):
        with pytest.raises(ConfigError, match="next_token predicts each token from those before it"):
            plan_of(text_recipe(path, model=replace(full, vocabulary=None).to_dict()))
    with pytest.raises(ConfigError, match="heads"):
        plan_of(
            text_recipe(
                text,
                model=decoder_of(
                    width=21,
                    vocabulary=None,
                    body={"kind": "stack", "blocks": [block(mixer={"kind": "softmax", "heads": 4})]},
                ).to_dict(),
            )
        )


# The verb


def test_the_verb(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(text_recipe(text)))
    assert main(["plan", str(recipe), "--set", "training.length=8", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["row"] == 8 and plan["steps"] == 7
    assert main(["plan", str(recipe), "--set", "training.checkpointing=true", "--set", "optimizer=adafactor"]) == 0
    out, err = capsys.readouterr()
    lines = {line[:15].strip(): line[15:].split() for line in out.splitlines()}
    assert lines["parameters"][0] == f"{plan['parameters']:,}"
    assert lines["FLOPs a token"][2:] == ["4", "times", "a", "forward", "pass", "over", "16", "tokens"]
    assert lines["optimiser"][-1] == "adafactor"
    assert lines["budget"][:2] == ["7", "steps"] and err == ""
    assert main(["plan", str(recipe), "--set", f"data.path={tmp_path / 'gone'}"]) == 0
    assert "planned without data" in capsys.readouterr().err
    assert main(["plan", str(recipe), "--set", "budget.flop=3"]) == 2


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.5, "0.5 "),
        (12, "12 "),
        (999.4, "999 "),
        (999.6, "1 k"),
        (5922816, "5.92 M"),
        (68976648192, "69 G"),
        (2.5e19, "25 E"),
    ],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        (0.05, "0.05 minutes"),
        (12.4, "12 minutes"),
        (119, "119 minutes"),
        (150, "2.5 hours"),
        (4000, "2.78 days"),
        (2e7, "38 years"),
    ],
)
def test_times_are_in_the_unit_that_people_say(minutes: float, text: str) -> None:
    assert lasting(minutes) == text
