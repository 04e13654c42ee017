"""Adapters: they say what their equations say, begin as they should, and are trained while all else stays."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import recipe_of, same_ending, stop_after, text  # noqa: F401
from torch import nn
from torch.nn import functional as F

import anyformer.adapters
from anyformer.adapters.lora import LoRA, merge, unmerge
from anyformer.adapters.prompt import Prompt
from anyformer.architectures.tokens import TokenModel
from anyformer.cli.list import rows_of
from anyformer.core.build import made
from anyformer.core.context import Context
from anyformer.core.errors import ConfigError
from anyformer.core.linear import Linear
from anyformer.core.paths import chosen, means
from anyformer.core.roles import AnyModel
from anyformer.core.spec import ModelSpec, from_dict
from anyformer.generation.generate import generate
from anyformer.kernels.attention import plain
from anyformer.laws import LAWS
from anyformer.laws.broken import agree
from anyformer.laws.case import Case, redraw
from anyformer.laws.cases import all_cases
from anyformer.laws.guess import BLOCK, FULL, READER
from anyformer.laws.verdict import judge
from anyformer.models.load import load
from anyformer.recipes.read import read, write
from anyformer.recipes.schema import Recipe
from anyformer.runs.folder import RunFolder
from anyformer.training.plan import plan
from anyformer.training.train import prepared, train, untrained

LORA = {"kind": "lora", "on": ["body.blocks.*.mixer", "body.blocks.0.ff.up"], "rank": 3, "alpha": 5.0}
PROMPT = {"kind": "prompt", "length": 3}
PREFIX = {"kind": "prefix", "on": ["body"], "length": 3}
ADAPTERS = {"lora": LORA, "prompt": PROMPT, "prefix": PREFIX}
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])


def declared(*adapters: dict[str, Any], **fields: Any) -> ModelSpec:
    body = {"kind": "stack", "blocks": [BLOCK, {**BLOCK, "ff": {"kind": "mlp", "hidden": 7}}]}
    tree = {"kind": "decoder", "width": 24, "vocabulary": 29, "body": body, "adapters": list(adapters), **fields}
    return from_dict(AnyModel, tree)


def built(*adapters: dict[str, Any], **fields: Any) -> TokenModel:
    """In float64, as a new model is."""
    model = declared(*adapters, **fields).build(seed=5, dtype=torch.float64).eval()
    assert isinstance(model, TokenModel)
    return model


def adapted_maps(model: nn.Module) -> dict[str, Linear]:
    return {path: part for path, part in model.named_modules() if isinstance(part, Linear) and part.adapter is not None}


# Paths


@pytest.mark.parametrize(
    ("pattern", "path", "yes"),
    [
        ("body", "body.blocks.0.mixer.q", True),
        ("body.blocks.*.mixer.q", "body.blocks.11.mixer.q", True),
        ("body.blocks.*.mixer.q", "body.blocks.11.mixer.k", False),
        ("body.blocks.*", "body.blocks", False),
        ("body.blocks.2-10", "body.blocks.10.ff.up.weight", True),
        ("body.blocks.2-10", "body.blocks.11.ff.up.weight", False),
        ("body.blocks.2", "body.inner.blocks.2.ff", True),
        ("body.inner.blocks.2", "body.blocks.2", True),
        ("bod", "body", False),
    ],
)
def test_what_a_path_means(pattern: str, path: str, yes: bool) -> None:
    assert means(pattern, path) is yes


def test_what_names_nothing_is_refused_with_what_is_near() -> None:
    paths = ["body.blocks.0.mixer.q", "body.blocks.0.ff.up", "head"]
    assert chosen(["head", "body.*.0.mixer"], paths, "on", "map") == ["body.blocks.0.mixer.q", "head"]
    for pattern, says in (
        ("body.*.0.mixr", "body.*.0 has: mixer, ff; nearest: 'mixer'"),
        ("x", "it has: body, head"),
        ("head.weight", "head has: nothing below it"),
        ("body.blocks.1-3", "body.blocks has: 0"),
    ):
        with pytest.raises(ConfigError) as error:
            chosen(["head", pattern], paths, "on", "map")
        assert str(error.value) == f"on: {pattern!r} names no map of this model; {says}"


@pytest.mark.parametrize(
    ("adapters", "says"),
    [
        ([{**LORA, "on": ["body.blocks.*.mixer.w"]}], "lora.on: .*mixer.w' names no linear map of .* has: q, k, v, o$"),
        ([{**LORA, "on": ["embedding"]}], "lora.on: 'embedding' names no linear map"),
        ([LORA, {**LORA, "on": ["body.blocks.1.mixer.q"]}], "body.blocks.1.mixer.q has an adapter already"),
        ([PROMPT, PROMPT], "prompt.at: body has a prompt already"),
        ([{**PROMPT, "at": "encoder"}], "prompt.at: 'encoder' names no stack of blocks .*body"),
        ([PREFIX, PREFIX], "prefix.on: body.blocks.0.mixer has a prefix already"),
        ([{**PREFIX, "on": ["body.blocks.0.ff"]}], "prefix.on: .* names no softmax or cross mixer"),
    ],
)
def test_what_finds_no_place_is_refused(adapters: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        declared(*adapters).build()


def test_a_prompt_is_refused_where_texts_share_a_row() -> None:
    with pytest.raises(ConfigError, match="texts that share a row"):
        declared(PROMPT, labels=["document"]).build()


def test_every_kind_is_tried_here() -> None:
    assert {*ADAPTERS} == {row.name for row in rows_of("adapters")} == {*anyformer.adapters.TABLE}


# LoRA


def test_a_new_lora_changes_nothing() -> None:
    base, model = built(), built({**LORA, "dropout": 0.5}).train()
    assert torch.equal(model(IDS), base(IDS))
    ours, theirs = model.state_dict(), base.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    assert {name.rpartition(".adapter.")[0] for name in ours.keys() - theirs.keys()} == {*adapted_maps(model)}
    assert all(part.get_parameter("adapter.a").std() > 0 for part in adapted_maps(model).values())


def test_it_is_put_where_the_paths_say() -> None:
    maps = [f"body.blocks.{i}.mixer.{name}" for i in range(2) for name in "qkvo"]
    assert [*adapted_maps(built(LORA))] == sorted([*maps, "body.blocks.0.ff.up"], key=lambda p: (p[12], "ff" in p))


def test_it_adds_the_product_of_its_matrices() -> None:
    model, plain = redraw(built(LORA), 0.5), built()
    weights = model.state_dict()
    want = {name: weights[name].clone() for name in plain.state_dict()}
    for path in adapted_maps(model):
        a, b = weights[f"{path}.adapter.a"], weights[f"{path}.adapter.b"]
        assert a.shape[0] == b.shape[1] == 3
        want[f"{path}.weight"] += 5.0 / 3 * torch.einsum("or,ri->oi", b, a)
    plain.load_state_dict(want)
    torch.testing.assert_close(model(IDS), plain(IDS), rtol=1e-10, atol=1e-10)


def test_dropout_is_of_what_the_narrow_matrices_read_and_only_in_training() -> None:
    linear = adapted_maps(redraw(built({**LORA, "dropout": 0.4}), 0.5))["body.blocks.0.ff.up"].train()
    x = torch.randn(5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    a, b = linear.get_parameter("adapter.a"), linear.get_parameter("adapter.b")
    torch.manual_seed(8)
    got = linear(x)
    torch.manual_seed(8)
    kept = F.dropout(torch.ones_like(x), 0.4)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.6])
    plain = x @ linear.weight.T + linear.get_parameter("bias")
    torch.testing.assert_close(got, plain + 5.0 / 3 * ((kept * x) @ a.T) @ b.T)
    torch.testing.assert_close(linear.eval()(x), plain + 5.0 / 3 * (x @ a.T) @ b.T)


def test_merged_it_says_the_same_and_unmerging_restores_the_bits() -> None:
    model, names = redraw(built(LORA), 0.5), built().state_dict().keys()
    before, said, spec = {n: w.clone() for n, w in model.state_dict().items()}, model(IDS), model.spec
    merged = merge(model)
    assert model.state_dict().keys() == names and model.spec == declared() and not adapted_maps(model)
    torch.testing.assert_close(model(IDS), said, rtol=1e-10, atol=1e-10)
    assert not torch.equal(model.get_parameter("body.blocks.0.mixer.q.weight"), before["body.blocks.0.mixer.q.weight"])
    unmerge(model, merged)
    assert model.spec is spec and model.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert torch.equal(model(IDS), said)


def test_merging_rounds_once() -> None:
    model = redraw(built(LORA), 0.5)
    low = built(LORA).to(torch.bfloat16)
    low.load_state_dict({name: weight.bfloat16() for name, weight in model.state_dict().items()})
    exact = {p: (part.weight.double() + part.adapter.matrix(torch.float64)) for p, part in adapted_maps(low).items()}  # pyright: ignore
    merge(low)
    assert all(torch.equal(low.get_parameter(f"{p}.weight"), w.bfloat16()) for p, w in exact.items())


def everywhere(spec: ModelSpec) -> ModelSpec | None:
    """The model with a LoRA at every linear map; None where there are none."""
    with torch.device("meta"):
        maps = tuple(path for path, part in made(spec).named_modules() if isinstance(part, Linear))
    return replace(spec, adapters=(LoRA(on=maps, rank=2, alpha=3.0),)) if maps else None


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
@torch.no_grad()
def test_every_part_heeds_the_adapters_of_its_maps(case: Case) -> None:
    """A part that multiplies by a map's weight itself would leave them out."""
    if (spec := everywhere(case.spec)) is None:
        return
    case = replace(case, spec=spec)
    some = case.text(9)
    said, model = case.whole(some), case.model
    if case.has_state:
        cuts = (case.first, *[1] * (some.length - case.first))
        agree(case.feed(some, case.state(), cuts)[0], said, "token by token")
    merged = merge(model)
    assert merged.adapters.keys() == {*spec.adapters[0].on}  # type: ignore[attr-defined]
    agree(case.whole(some), said, "merged")
    unmerge(model, merged)


# Prompts and prefixes


@pytest.mark.parametrize("law", [name for name, law in LAWS.items() if law.of == "part"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapted_model_keeps_the_laws(kind: str, law: str) -> None:
    spec = declared(ADAPTERS[kind])
    exempt = {"packed": "texts that share a row cannot have one each"} if kind == "prompt" else {}
    verdict = judge(Case(kind, spec, spec, "", exempt), law)
    assert verdict.outcome == ("exempt" if law in exempt else "ok"), verdict.text


def test_a_prompt_is_read_as_vectors_before_the_text() -> None:
    model = redraw(built(PROMPT), 0.5)
    prompt, plain = model.get_parameter("body.prompt.vectors"), built()
    plain.load_state_dict({name: weight for name, weight in model.state_dict().items() if "prompt" not in name})
    x = torch.cat([prompt.expand(2, -1, -1), plain.embedding(IDS)], 1)
    out, _ = plain.body(x, Context.start(2, 3 + IDS.shape[1]), None)
    table = plain.get_parameter("embedding.weight")
    torch.testing.assert_close(model(IDS), out[:, 3:] @ table.T, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(model(IDS), plain(IDS))


def test_a_prompt_begins_as_vectors_of_the_vocabulary_as_they_enter() -> None:
    kind = Prompt(length=4)
    model = built({**PROMPT, "length": 4}, embedding={"kind": "tokens", "scale": 3.0}, dropout=0.5).train()
    kind.begin(model, 7)
    vectors, table = model.get_parameter("body.prompt.vectors"), 3 * model.get_parameter("embedding.weight")
    assert model.training
    assert all(bool((vector == table).all(1).any()) for vector in vectors)
    again = built({**PROMPT, "length": 4}, embedding={"kind": "tokens", "scale": 3.0})
    kind.begin(again, 7)
    assert torch.equal(again.get_parameter("body.prompt.vectors"), vectors)
    kind.begin(again, 8)
    assert not torch.equal(again.get_parameter("body.prompt.vectors"), vectors)


@pytest.mark.parametrize(
    "mixer",
    [
        {"pattern": "causal & window(3)"},
        {"position": "rotary", "softcap": 2.0},
        {"position": {"kind": "alibi"}},
        {"position": {"kind": "shaw", "furthest": 2}},
    ],
    ids=["window", "rotary", "alibi", "shaw"],
)
@torch.no_grad()
def test_a_prefix_is_keys_and_values_that_every_token_sees(mixer: dict[str, Any]) -> None:
    """By the weights of attention to the tokens alone, and the scores of the prefix beside their log-sum-exp."""
    block = {**BLOCK, "mixer": {"kind": "softmax", "heads": 4, "kv_heads": 2, **mixer}}
    model = redraw(built(PREFIX, body={"kind": "stack", "blocks": [block]}), 0.5)
    part, x = model.get_submodule("body.blocks.0.mixer"), torch.randn(2, 8, 24, dtype=torch.float64)
    regions: list[Any] = []
    prefix = part.get_submodule("prefix")
    prefix.register_forward_pre_hook(lambda _, given: regions.append(*given))
    got, _ = part(x, Context.start(2, 8))
    (region,) = regions
    out, lse = plain(region)  # (B, T, H, D) and (B, H, T)
    k, v = (
        weight.repeat_interleave(2, 1) for weight in (prefix.get_parameter("k"), prefix.get_parameter("v"))
    )  # (P, H, D), a key-value head for two
    scores = torch.einsum("bthd,phd->bhtp", region.q, k) * 6**-0.5
    if region.softcap:
        scores = region.softcap * (scores / region.softcap).tanh()
    weights = torch.cat([lse[..., None], scores], -1).softmax(-1)
    want = weights[..., 0].transpose(1, 2)[..., None] * out + torch.einsum("bhtp,phd->bthd", weights[..., 1:], v)
    torch.testing.assert_close(got, part.get_submodule("o")(want.flatten(-2)), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_both_sides_of_an_encoder_and_decoder_can_be_adapted() -> None:
    prompt, prefix = {**PROMPT, "at": "encoder"}, {**PREFIX, "on": ["decoder.blocks.*.cross", "encoder"]}
    sides = {"encoder": {"kind": "stack", "blocks": [FULL]}, "decoder": {"kind": "stack", "blocks": [READER, READER]}}
    tree = {"kind": "encoder_decoder", "width": 24, "vocabulary": 29, **sides, "adapters": [prompt, prefix]}
    spec = from_dict(AnyModel, tree)
    names = {name for name, _ in spec.build().named_parameters() if {"prompt", "prefix"} & {*name.split(".")}}
    keys = ["encoder.blocks.0.mixer", *(f"decoder.blocks.{i}.cross" for i in range(2))]
    assert names == {"encoder.prompt.vectors", *(f"{path}.prefix.{name}" for path in keys for name in "kv")}
    case = Case("both", spec, spec, "")
    for law in ("cut", "padding", "trim"):
        assert judge(case, law).outcome == "ok"
    Prompt(length=3, at="encoder").begin(case.model, 1)


# Training


@pytest.fixture
def base(text: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A run to start from."""
    return train(recipe_of(text, steps=4), tmp_path / "base").path


def adapting(text: Path, base: Path, adapt: dict[str, Any] | None, **sections: Any) -> dict[str, Any]:  # noqa: F811
    tree = recipe_of(text, **sections)
    tree["model"] = {"load": str(base), "set": {"body.blocks.*.mixer.dropout": 0.2}}
    return tree if adapt is None else {**tree, "adapt": adapt}


TRAINED = {
    "lora": {"kind": "lora", "on": ["body.blocks.*.mixer.q", "body.blocks.1.ff"], "rank": 2, "dropout": 0.3},
    "prompt": PROMPT,
    "prefix": PREFIX,
}


@pytest.mark.parametrize("kind", TRAINED)
def test_only_what_is_added_is_trained_and_the_run_opens_alone(
    text: Path,  # noqa: F811
    base: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    old = RunFolder.open(base).weights()
    done = train(adapting(text, base, TRAINED[kind]), tmp_path / "run")
    shutil.rmtree(base)  # a run needs no other
    run = RunFolder.open(done.path)
    new, snapshot = run.weights(), run.latest_snapshot()
    assert old.keys() < new.keys() and all(torch.equal(new[name], weight) for name, weight in old.items())
    assert snapshot is not None
    moments = [name for name in snapshot.tensors if name.startswith("optimizer.") and "exp_avg_sq" in name]
    assert len(moments) == len(new.keys() - old.keys())
    model, ids = load(done.path), IDS % 7
    assert model.spec.adapters == (read(RunFolder.open(done.path).recipe).adapt,)
    assert torch.equal(model(ids), done.model(ids))
    merge(model)
    assert torch.allclose(model(ids), done.model(ids), atol=1e-5)
    assert generate(load(done.path), "the", tokens=6) == generate(done.model, "the", tokens=6)


@pytest.mark.parametrize("kind", TRAINED)
def test_a_new_run_begins_with_the_weights_of_the_other(
    text: Path,  # noqa: F811
    base: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    losses: list[float] = []
    train(
        adapting(text, base, TRAINED[kind], steps=1, evaluate={"every": 1}, optimizer={"lr": 1e-9}),
        tmp_path / "run",
        report=lambda report: losses.append(report.evaluation.metrics["loss"]) if report.evaluation else None,
    )
    before = train(adapting(text, base, None, steps=1, optimizer={"lr": 1e-9}), tmp_path / "same").metrics["loss"]
    assert losses[0] == pytest.approx(before, abs=1e-5 if kind == "lora" else 0.5)
    assert (losses[0] == pytest.approx(before, abs=1e-5)) is (kind == "lora")


@pytest.mark.parametrize("kind", TRAINED)
def test_a_run_that_adapts_and_was_stopped_ends_as_one_that_was_not(
    text: Path,  # noqa: F811
    base: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    recipe = adapting(text, base, TRAINED[kind], steps=8)
    train(recipe, tmp_path / "a")
    train(recipe, tmp_path / "b", report=stop_after(5))
    shutil.rmtree(base / "snapshots")
    (base / "weights.safetensors").unlink()  # they were needed once
    torch.manual_seed(99)
    assert train(read(RunFolder.open(tmp_path / "b").recipe), tmp_path / "b", resume=True).steps == 8
    same_ending(tmp_path / "a", tmp_path / "b")


def test_what_another_part_lacks_is_told_and_what_is_added_is_not(
    text: Path,  # noqa: F811
    base: Path,
    tmp_path: Path,
) -> None:
    tree, notes = adapting(text, base, TRAINED["lora"], steps=1), list[str]()
    tree["model"]["set"] = {"body.blocks.0.ff": {"kind": "mlp", "hidden": 8}}
    done = train(tree, tmp_path / "run", note=notes.append)
    assert {f"new: body.blocks.0.ff.{name}.bias" for name in ("up", "down")} < {*notes}
    assert "dropped: body.blocks.0.ff.gate.weight" in notes and not [text for text in notes if "adapter" in text]
    kept = "body.blocks.1.ff.up.weight"
    assert torch.equal(done.model.get_parameter(kept), RunFolder.open(base).weights()[kept])


@pytest.mark.parametrize(
    ("training", "trained"),
    [
        ({"freeze": ["embedding", "body.blocks.0"]}, {"body.blocks.1", "body.norm"}),
        ({"train": ["body.blocks.*.ff.down", "body.norm"]}, {"body.blocks.0", "body.blocks.1", "body.norm"}),
        ({"train": ["body"], "freeze": ["body.blocks.0-1"]}, {"body.norm"}),
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_what_is_frozen_stays(
    text: Path,  # noqa: F811
    tmp_path: Path,
    training: dict[str, Any],
    trained: set[str],
    optimizer: str,
) -> None:
    if optimizer == "muon" and trained == {"body.norm"}:
        return  # there is no matrix for it
    tree = recipe_of(text, steps=3, training=training, optimizer={"kind": optimizer})
    recipe, corpus = prepared(read(tree))
    first = untrained(recipe, corpus, "cpu")
    last = train(tree, tmp_path / "run").model.state_dict()
    changed = {name for name, weight in first.state_dict().items() if not torch.equal(weight, last[name])}
    assert changed == {name for name, weight in first.named_parameters() if weight.requires_grad}
    assert {".".join(name.split(".")[: 2 if "norm" in name.split(".")[1] else 3]) for name in changed} == trained


def test_an_adapter_and_a_head_are_trained_together(text: Path, base: Path) -> None:  # noqa: F811
    recipe, corpus = prepared(read(adapting(text, base, TRAINED["lora"], training={"train": ["body.norm"]})))
    learnt = {name for name, weight in untrained(recipe, corpus, "cpu").named_parameters() if weight.requires_grad}
    assert {name for name in learnt if "adapter" not in name} == {"body.norm.weight", "body.norm.bias"}
    assert len(learnt) == 2 + 2 * 5


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"training": {"freeze": ["body.blocks.7"]}}, r"training.freeze: .* names no weight .*body.blocks has: 0, 1$"),
        ({"training": {"train": ["haed"]}}, r"training.train: 'haed' names no weight"),
        ({"training": {"freeze": ["embedding", "body"]}}, "nothing is left to be trained"),
        ({"training": {"freeze": ["body"]}, "adapt": LORA}, "adapt freezes all but what it adds; training.train says"),
        ({"adapt": {**LORA, "on": []}}, "adapt.on: .*at least 1"),
        ({"adapt": {**LORA, "rnak": 3}}, "adapt.rnak: no such key.*rank"),
        ({"adapt": {**LORA, "on": ["body.blocks.0.mixer.x"]}}, "lora.on: .*has: q, k, v, o"),
    ],
)
def test_what_cannot_be_frozen_or_adapted_is_refused_and_leaves_nothing(
    text: Path,  # noqa: F811
    tmp_path: Path,
    sections: dict[str, Any],
    says: str,
) -> None:
    with pytest.raises(ConfigError, match=says):
        train(recipe_of(text, **sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_adapts_is_itself_when_it_is_written(text: Path) -> None:  # noqa: F811
    recipe = read(recipe_of(text) | {"adapt": LORA}, ["adapt.rank=4", "training.train=body.norm,embedding"])
    assert isinstance(recipe.adapt, LoRA) and (recipe.adapt.rank, recipe.training.train) == (
        4,
        ("body.norm", "embedding"),
    )
    assert read(write(recipe)) == recipe
    assert isinstance(recipe, Recipe) and recipe.model.adapters == () and recipe.adapted.adapters == (recipe.adapt,)


def adapted_rows(text: Path) -> int:  # noqa: F811
    """How wide the one feed-forward map is that LORA names."""
    recipe, corpus = prepared(read(recipe_of(text)))
    return untrained(recipe, corpus, "cpu").get_parameter("body.blocks.0.ff.up.weight").shape[0]


def test_a_plan_counts_what_is_trained(text: Path) -> None:  # noqa: F811
    adapted, whole = (plan(read(recipe_of(text) | more), torch.device("cpu")) for more in ({"adapt": LORA}, {}))
    hidden = adapted_rows(text)
    assert adapted.trained == adapted.parameters - whole.parameters == 3 * (8 * (16 + 16) + 16 + hidden)
    assert (adapted.gradients, adapted.optimizer) == (4 * adapted.trained, 8 * adapted.trained)
    assert whole.trained == whole.parameters and whole.gradients == whole.weights
    upper = plan(read(recipe_of(text, training={"freeze": ["embedding", "body.blocks.0"]})), torch.device("cpu"))
    assert upper.activations is not None and whole.activations is not None
    assert upper.activations < 0.75 * whole.activations  # nothing is kept of what has no gradient
