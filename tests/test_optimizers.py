"""Optimisers: each does what its paper's equations say, on the parameters that are its own, and goes on exactly."""

import json
import math
import signal
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from anyformer.core.errors import ConfigError
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import OptimizerSpec, from_dict
from anyformer.recipes.read import read, write
from anyformer.recipes.schema import recipe_schema
from anyformer.recipes.yaml import load
from anyformer.runs.folder import RunFolder
from anyformer.runs.pack import pack_state, unpack_state
from anyformer.training.loop import Report
from anyformer.training.optimizers.adafactor import Adafactor
from anyformer.training.optimizers.adamw import AdamW
from anyformer.training.optimizers.base import clip, hidden_matrices, scale_rates
from anyformer.training.optimizers.muon import Muon
from anyformer.training.train import train

Array = NDArray[np.float64]


DECLARATION: dict[str, Any] = {  # tables of every kind: words, positions, buckets of distances
    "kind": "decoder",
    "vocabulary": 11,
    "width": 12,
    "head": "language",
    "position": {"kind": "learned", "length": 9},
    "body": {
        "kind": "stack",
        "blocks": [
            {
                "kind": "block",
                "mixer": {"kind": "softmax", "heads": 3, "bias": True, "position": "t5"},
                "ff": {"kind": "mlp", "hidden": 20},
            }
        ],
    },
}
ATTENTION, MLP = "body.blocks.0.mixer.{}.weight", "body.blocks.0.ff.{}.weight"
HIDDEN = {*(ATTENTION.format(name) for name in "qkvo"), *(MLP.format(name) for name in ("up", "down"))}
MINE = Muon(lr=0.03, momentum=0.8, weight_decay=0.2, adamw=AdamW(lr=0.01, betas=(0.7, 0.8), weight_decay=0.4, eps=1e-5))
ALL = (
    AdamW(lr=0.02, betas=(0.8, 0.9), weight_decay=0.3, eps=1e-6),
    MINE,
    Adafactor(lr=0.3, decay=0.6, clip=1.5, weight_decay=0.2),
)
RECIPE = "model: {preset: tiny}\ndata: {kind: text, path: a.txt}\nbudget: {steps: 10}\n"


def model_of(seed: int = 3, dtype: torch.dtype = torch.float64) -> Model:
    model = from_dict(AnyModel, DECLARATION).build(dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model


def weights(model: nn.Module) -> dict[str, Array]:
    return {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}


def set_gradients(model: nn.Module, step: int) -> dict[str, Array]:
    """Gradients that change, some small and some large."""
    draw = np.random.default_rng(step)
    gradients = {name: draw.normal(size=p.shape) * 10.0 ** (step % 3 - 1) for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = torch.from_numpy(gradients[name]).to(parameter.dtype)
    return gradients


class Moments:
    """Loshchilov & Hutter 2019, algorithm 2."""

    def __init__(self, spec: AdamW) -> None:
        self.spec = spec
        self.m: dict[str, Array] = {}
        self.v: dict[str, Array] = {}

    def step(self, name: str, w: Array, g: Array, step: int) -> Array:
        b1, b2 = self.spec.betas
        m = self.m[name] = b1 * self.m.get(name, 0 * g) + (1 - b1) * g
        v = self.v[name] = b2 * self.v.get(name, 0 * g) + (1 - b2) * g**2
        decayed = w * (1 - self.spec.lr * self.spec.weight_decay) if w.ndim == 2 else w
        return decayed - self.spec.lr * m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + self.spec.eps)


def orthogonalised(u: Array) -> Array:
    """Jordan et al. 2024, `zeropower_via_newtonschulz5`, in float64."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = u.T if len(u) > len(u.T) else u
    x = x / np.linalg.norm(x)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if len(u) > len(u.T) else x


# What each does


def test_adamw_is_the_paper_s_on_every_parameter() -> None:
    spec, model = AdamW(lr=0.02, betas=(0.8, 0.9), weight_decay=0.3, eps=1e-6), model_of()
    optimizer, moments, want = spec.make(model), Moments(spec), weights(model)
    for step in (1, 2, 3):
        for name, gradient in set_gradients(model, step).items():
            want[name] = moments.step(name, want[name], gradient, step)
        optimizer.step()
    assert {p.dim() for p in model.parameters()} == {1, 2}
    for name, value in weights(model).items():
        np.testing.assert_allclose(value, want[name], rtol=0, atol=1e-10, err_msg=name)


def test_muon_turns_hidden_matrices_and_leaves_the_rest_to_adamw() -> None:
    model = model_of()
    optimizer, moments, want = MINE.make(model), Moments(MINE.adamw), weights(model)
    mean = {name: np.zeros_like(value) for name, value in want.items()}
    for step in (1, 2, 3):
        for name, g in set_gradients(model, step).items():
            if name not in HIDDEN:
                want[name] = moments.step(name, want[name], g, step)
                continue
            mean[name] = 0.8 * mean[name] + 0.2 * g
            turned = orthogonalised(0.8 * mean[name] + 0.2 * g)
            rows, columns = g.shape
            want[name] = want[name] * (1 - 0.03 * 0.2) - 0.03 * math.sqrt(max(1, rows / columns)) * turned
        optimizer.step()
    assert want.keys() > HIDDEN and len(want) - len(HIDDEN) > 8
    for name, value in weights(model).items():
        # torch turns matrices in bfloat16, of 8 bits
        np.testing.assert_allclose(value, want[name], rtol=0, atol=2e-3 if name in HIDDEN else 1e-10, err_msg=name)


def test_adafactor_is_the_paper_s_on_every_parameter() -> None:
    spec, model = Adafactor(lr=0.3, decay=0.6, clip=1.5, weight_decay=0.2), model_of()
    optimizer, want = spec.make(model), weights(model)
    squares: dict[tuple[str, str], Array] = {}
    clipped = 0
    for step in range(1, 16):
        kept, rate = 1 - step**-0.6, min(0.3, 1 / math.sqrt(step))

        def mean(name: str, of: str, new: Array, kept: float = kept) -> Array:
            squares[name, of] = kept * squares.get((name, of), 0 * new) + (1 - kept) * new
            return squares[name, of]

        for name, g in set_gradients(model, step).items():
            w = want[name]
            if g.ndim == 2:
                r, c = mean(name, "rows", (g**2).mean(1)), mean(name, "columns", (g**2).mean(0))
                v = np.outer(r, c) / r.mean()
            else:
                v = mean(name, "all", g**2)
            u = g / np.sqrt(v)
            size = np.sqrt((u**2).mean())
            clipped += size > 1.5
            step_size = rate * max(1e-3, np.sqrt((w**2).mean())) / max(1.0, size / 1.5)
            want[name] = (w * (1 - 0.3 * 0.2) if w.ndim == 2 else w) - step_size * u
        optimizer.step()
    assert clipped
    for name, value in weights(model).items():
        np.testing.assert_allclose(value, want[name], rtol=0, atol=1e-10, err_msg=name)


def test_gradients_are_cut_to_their_norm() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), -1.0)
    norm = math.sqrt(6 * 4 + 2)
    assert clip(layer, None) == pytest.approx(norm)
    assert clip(layer, 100.0) == pytest.approx(norm)
    assert float(layer.bias.grad[0]) == -1
    assert clip(layer, 0.5) == pytest.approx(norm)
    assert float(layer.bias.grad[0]) == pytest.approx(-0.5 / norm, rel=1e-5)
    assert clip(layer, None) == pytest.approx(0.5, rel=1e-5)


# What the loop asks of all of them


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: type(spec).__name__)
def test_a_state_that_was_packed_goes_on_bit_for_bit(spec: OptimizerSpec) -> None:
    def some(optimizer: torch.optim.Optimizer, model: Model, first: int) -> None:
        for step in (first, first + 1):
            scale_rates(optimizer, 1 / step)
            set_gradients(model, step)
            optimizer.step()

    straight = model_of(dtype=torch.float32)
    optimizer = spec.make(straight)
    some(optimizer, straight, 1)
    tensors, facts = pack_state(optimizer.state_dict())
    facts = json.loads(json.dumps(facts))
    resumed = model_of(seed=8, dtype=torch.float32)
    resumed.load_state_dict(straight.state_dict())
    again = spec.make(resumed)
    again.load_state_dict(unpack_state({name: tensor.clone() for name, tensor in tensors.items()}, facts))  # type: ignore[arg-type]
    some(optimizer, straight, 3)
    some(again, resumed, 3)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    packed, _ = pack_state(again.state_dict())
    assert all(torch.equal(tensor, packed[name]) for name, tensor in pack_state(optimizer.state_dict())[0].items())


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: type(spec).__name__)
def test_a_schedule_scales_every_group_s_own_rate(spec: OptimizerSpec) -> None:
    """Also after loading, which makes new groups; what is scaled is what is stepped with."""
    model = model_of(dtype=torch.float32)
    optimizer = spec.make(model)
    optimizer.load_state_dict(optimizer.state_dict())
    scale_rates(optimizer, 0.5)
    scale_rates(optimizer, 0.25)
    rates = {spec.lr, MINE.adamw.lr} if spec is MINE else {spec.lr}
    assert {group["lr"] for group in optimizer.param_groups} == {rate / 4 for rate in rates}
    scale_rates(optimizer, 0.0)
    before = weights(model)
    set_gradients(model, 1)
    optimizer.step()
    assert all((value == before[name]).all() for name, value in weights(model).items())
    optimizer.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: type(spec).__name__)
def test_every_parameter_is_stepped_once_and_only_matrices_are_decayed(spec: OptimizerSpec) -> None:
    model = model_of()
    groups = spec.make(model).param_groups
    stepped = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, stepped)) == sorted(map(id, model.parameters()))
    for group in groups:
        assert {(p.dim() >= 2) == (group["weight_decay"] > 0) for p in group["params"]} == {True}


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: type(spec).__name__)
def test_the_size_of_a_state_is_known_before_there_is_one(spec: OptimizerSpec) -> None:
    model = model_of()
    optimizer = spec.make(model)
    set_gradients(model, 1)
    optimizer.step()
    tensors, _ = pack_state(optimizer.state_dict())
    held = sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(".step"))
    assert spec.state_size(model) == held > 0


@pytest.mark.parametrize("optimizer", ["muon", "adafactor"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(optimizer: str, tmp_path: Path) -> None:
    def stop(report: Report) -> None:
        if report.step == 3 and report.values:
            signal.raise_signal(signal.SIGINT)

    (tmp_path / "text.txt").write_text("the cat sat on a mat and saw the dog run far away from home. " * 20)
    recipe: dict[str, Any] = {
        "model": {**DECLARATION, "vocabulary": None},
        "data": {"kind": "text", "path": str(tmp_path / "text.txt"), "tokenizer": "characters"},
        "optimizer": {"kind": optimizer},
        "schedule": {"kind": "linear", "warmup": 2},
        "budget": {"steps": 6},
        "training": {"batch": 2, "length": 8},
    }
    train(recipe, tmp_path / "a")
    assert train(recipe, tmp_path / "b", report=stop).steps == 3
    assert train(recipe, tmp_path / "b", resume=True).steps == 6
    straight, resumed = (RunFolder.open(tmp_path / name).latest_snapshot() for name in "ab")
    assert straight is not None and resumed is not None and straight.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in straight.tensors.items())


@pytest.mark.parametrize(
    "change",
    [
        {"head": "language"},
        {"head": "tied"},
        {"head": "masked"},  # it has a square matrix of its own, and is still the head
        {"body": {"kind": "rmt", "segment": 4, "slots": 3, "inner": DECLARATION["body"]}},
    ],
    ids=str,
)
def test_what_is_hidden(change: dict[str, Any]) -> None:
    model = from_dict(AnyModel, {**DECLARATION, **change}).build()
    names = {id(parameter): name.replace("inner.", "") for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in hidden_matrices(model)} == HIDDEN


def test_muon_needs_hidden_matrices() -> None:
    class Table(nn.Module):
        head = None

    with pytest.raises(ConfigError, match="no hidden matrices for muon; take adamw"):
        Muon().make(Table())  # type: ignore[arg-type]


# In recipes


@pytest.mark.parametrize(
    ("text", "sets", "want"),
    [
        ("", [], AdamW()),
        ("optimizer: {lr: 4e-3, betas: [0.8, 0.9]}", [], AdamW(lr=4e-3, betas=(0.8, 0.9))),
        ("optimizer: {kind: adamw, lr: 4e-3}", [], AdamW(lr=4e-3)),
        ("optimizer: muon", [], Muon()),
        ("optimizer: {lr: 4e-3}", ["optimizer.eps=1e-6"], AdamW(lr=4e-3, eps=1e-6)),
        ("", ["optimizer.lr=4e-3"], AdamW(lr=4e-3)),
        ("optimizer: {lr: 4e-3, weight_decay: 0.3}", ["optimizer=muon"], Muon(lr=4e-3, weight_decay=0.3)),
        ("optimizer: {lr: 4e-3}", ["optimizer={kind: adafactor}"], Adafactor()),
        ("optimizer: {lr: 4e-3}", ["optimizer={eps: 1e-6}"], AdamW(eps=1e-6)),
        ("optimizer: muon", ["optimizer.adamw.lr=1e-2"], Muon(adamw=AdamW(lr=1e-2, weight_decay=0.01))),
    ],
)
def test_a_recipe_names_its_optimiser_or_means_adamw(text: str, sets: list[str], want: OptimizerSpec) -> None:
    recipe = read(RECIPE + text, sets)
    assert recipe.optimizer == want
    assert read(write(recipe)).optimizer == want


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["optimizer=adam"], "optimizer: no 'adam' here; allowed: adafactor, adamw, muon; nearest: 'adamw'"),
        (["optimizer.momentum=0.9"], "optimizer.momentum: no such key; allowed: lr, betas, weight_decay, eps"),
        (["optimizer.betas=0.5,0.6", "optimizer=muon"], "optimizer: muon has no betas"),
        (["optimizer=muon", "optimizer.adamw.lr=0"], "optimizer.adamw.lr: should be greater than 0"),
        (["optimizer=cosine"], "optimizer: no 'cosine' here"),
        (["optimizer=3"], "optimizer: should be a row's name or {kind: name, ...}; names: adafactor, adamw, muon"),
    ],
)
def test_what_is_no_optimiser_is_refused(sets: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(RECIPE, sets)
    assert says in str(error.value)


def test_the_schema_takes_an_optimiser_with_and_without_its_kind() -> None:
    check = jsonschema.Draft202012Validator(recipe_schema())
    for good in ("{lr: 4e-3}", "{kind: adamw, lr: 4e-3}", "muon", "{kind: muon, adamw: {lr: 1e-3}}", "{}"):
        check.validate(load(RECIPE + f"optimizer: {good}", "r.yaml"))
    for bad in ("{momentum: 0.9}", "adam", "{kind: muon, betas: [0.9, 0.9]}", "3"):
        assert not check.is_valid(load(RECIPE + f"optimizer: {bad}", "r.yaml"))
