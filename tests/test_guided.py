"""Objectives that look at a second model: preferences at the one that training began with, students at their teacher.

The second implementations know no batches, no padding and no chunks: a text is one call, a softmax is written out.
"""

from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from tasks import BPE, TASKS, Task, decoder, encoder, recipe_for, toy_rows, write_rows
from test_adapters import LORA
from test_faults_objectives import says_no
from test_training import same_ending, stop_after
from torch import Tensor, nn

import anyformer.heads.base
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.model import Model
from anyformer.data.prompts import Prompts
from anyformer.data.table import Table
from anyformer.models.load import load
from anyformer.recipes.read import read
from anyformer.runs.folder import RunFolder
from anyformer.training.evaluate import evaluate
from anyformer.training.loop import Trainer
from anyformer.training.measure import measure
from anyformer.training.plan import plan
from anyformer.training.train import first_weights, give_guide, prepared, source_of, train, untrained

CPU = torch.device("cpu")
PREFERS = Task({"kind": "preferences", "beta": 0.3, "smoothing": 0.1}, decoder(), BPE, ("source", "chosen", "rejected"))
DROPOUT = {"dropout": 0.2}


def preferred(count: int, seed: int) -> list[dict[str, str]]:
    """Rows whose chosen answer ends with a café, and the rejected one with a mat."""
    rows = [(row["text"], row["pair"]) for row in toy_rows(count, seed)]
    return [
        {"source": text, "chosen": f"{pair} café!", "rejected": " ".join([*reversed(pair.split()), "mat"])}
        for text, pair in rows
    ]


def prefers(tmp_path: Path, **sections: Any) -> dict[str, Any]:
    paths = [write_rows(tmp_path / f"{side}.jsonl", preferred(n, n)) for side, n in (("a", 23), ("b", 7))]
    return recipe_for(PREFERS, *paths, **sections)


def tutor(tmp_path: Path, name: str, steps: int) -> dict[str, Any]:
    """A recipe for a teacher, wider than its student."""
    paths = [write_rows(tmp_path / f"{side}.jsonl", toy_rows(23, n)) for n, side in enumerate("ab")]
    short = {} if name == "classification" else {"length": 12}
    return recipe_for(TASKS[name], *paths, steps=steps, model={"width": 24}, training=short, seed=5)


def taught(tmp_path: Path, name: str = "next_token", teacher: Path | None = None, **sections: Any) -> dict[str, Any]:
    """A recipe for a student of a task; its teacher, unless there is one, is trained for two steps."""
    folder = tmp_path / "teacher" if teacher is None else teacher
    tree = tutor(tmp_path, name, 2)
    if teacher is None:
        train(tree, folder)
    objective = {"kind": "distillation", "teacher": str(folder), "of": TASKS[name].objective, "weight": 0.3}
    more = sections.pop("objective", {})
    for key, section in {"model": {"width": 16}, "seed": 0, "budget": {"steps": 10}, **sections}.items():
        tree[key] = {**tree[key], **section} if isinstance(section, dict) else section
    tree["data"] = {**tree["data"], "tokenizer": "bytes"}  # which gives way to the teacher's
    return {**tree, "objective": {**objective, "temperature": 1.7, **more}}


def trainer_of(recipe: dict[str, Any]) -> Trainer:
    """In float64, with large weights, other ones in the model than in its guide."""
    settled, corpus = prepared(read(recipe))
    model = untrained(settled, corpus, "cpu")
    first_weights(model, settled, corpus, source_of(settled), lambda note: None)
    give_guide(model, settled, corpus)
    for number, parameter in enumerate(p for one in (model, *model.guide) for p in one.double().parameters()):
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(number))
    trainer = Trainer(settled, model, corpus, lambda report: None)
    model.eval()
    return trainer


def slopes(model: Model, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def agree(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert any(bool(one.any()) for one in ours)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


# Preferences


def likelihood(model: Model, tokenizer: Any, row: dict[str, str], side: str) -> Tensor:
    """log p(answer </s> | <s> prompt), a text at a time."""
    begin, end = (tokenizer.plain.token_to_id(name) for name in ("<s>", "</s>"))
    prompt, answer = [begin, *tokenizer.encode(row["source"])], [*tokenizer.encode(row[side]), end]
    logits = model(torch.tensor([prompt + answer[:-1]]))[0, len(prompt) - 1 :]
    chances = torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True)
    return torch.log(chances[range(len(answer)), answer]).sum()


def preferred_loss(trainer: Trainer, row: dict[str, str], beta: float, smoothing: float) -> Tensor:
    """Equation 7, ratios and all."""
    (first,), tokenizer = trainer.model.guide, trainer.corpus.tokenizer
    ratios = [
        likelihood(trainer.model, tokenizer, row, side) - likelihood(first, tokenizer, row, side)
        for side in ("chosen", "rejected")
    ]
    chance = 1 / (1 + torch.exp(-beta * (ratios[0] - ratios[1])))
    return -(1 - smoothing) * torch.log(chance) - smoothing * torch.log(1 - chance)


def test_preferences_are_equation_7_and_so_are_their_slopes(tmp_path: Path) -> None:
    trainer = trainer_of(prefers(tmp_path, objective={"beta": 0.02}))
    rows = preferred(23, 23)
    for number in (0, 3, 8):  # 8 is of the second epoch
        batch, chosen = trainer.feed.at(number), trainer.feed.buckets.at(number)  # pyright: ignore
        wanted = torch.stack([preferred_loss(trainer, rows[at], 0.02, 0.1) for at in chosen]).sum()
        loss = trainer.objective.loss(trainer.model, batch.tensors)
        torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=1e-10)
        agree(slopes(trainer.model, loss), slopes(trainer.model, wanted))
        assert batch.count == len(chosen)
        tokenizer = trainer.corpus.tokenizer
        texts = [2 * len(tokenizer.encode(rows[at]["source"])) + 4 for at in chosen]
        answers = [len(tokenizer.encode(rows[at][side])) for at in chosen for side in ("chosen", "rejected")]
        assert batch.tokens == sum(texts) + sum(answers)


def test_what_is_measured_of_preferences(tmp_path: Path) -> None:
    trainer = trainer_of(prefers(tmp_path, objective={"beta": 0.02}))
    found = measure(trainer.objective, trainer.model, trainer.corpus, trainer.recipe.training)
    with torch.no_grad():
        losses = torch.stack([preferred_loss(trainer, row, 0.02, 0.0) for row in preferred(7, 7)])
    margins = -torch.log(torch.exp(losses) - 1) / 0.02
    assert found.metrics == {
        "loss": pytest.approx(float(losses.mean()), rel=1e-10),
        "accuracy": float((losses < log(2)).double().mean()),
        "margin": pytest.approx(float(margins.mean()), rel=1e-8),
    }
    assert 0 < found.metrics["accuracy"] < 1
    assert found.counts == {"rows": 7}
    assert found.intervals.keys() == found.metrics.keys()


def begun(recipe: dict[str, Any]) -> Trainer:
    """As `train` begins."""
    settled, corpus = prepared(read(recipe))
    model = untrained(settled, corpus, "cpu")
    first_weights(model, settled, corpus, source_of(settled), lambda note: None)
    give_guide(model, settled, corpus)
    return Trainer(settled, model, corpus, lambda report: None)


ADAPTERS = [None, {**LORA, "on": ["body.blocks.*.mixer.q"]}, {"kind": "prefix", "on": ["body"], "length": 2}]


@pytest.mark.parametrize("adapt", ADAPTERS, ids=["all", "lora", "prefix"])
def test_the_margin_grows_from_nothing_and_the_reference_does_not_move(tmp_path: Path, adapt: Any) -> None:
    more = {} if adapt is None else {"adapt": adapt, "optimizer": {"lr": 0.1}}
    trainer = begun(prefers(tmp_path, objective={"smoothing": 0.0}) | more)
    (first,) = trainer.model.guide
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    assert trainer.step()["loss"] == pytest.approx(log(2), abs=1e-6)
    losses = [trainer.step()["loss"] for _ in range(14)]
    assert sum(losses[-5:]) / 5 < log(2) - 0.005
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in first.parameters())
    assert {*trainer.model.state_dict()} == {*before}  # no part of the model is the guide's


@pytest.mark.parametrize("adapt", ADAPTERS[:2], ids=["all", "lora"])
def test_preferences_go_on_exactly_with_the_weights_of_the_first_step(tmp_path: Path, adapt: Any) -> None:
    paths = [write_rows(tmp_path / f"{side}.jsonl", toy_rows(9, n)) for n, side in enumerate(("old", "older"))]
    start = train(recipe_for(TASKS["prompted"], *paths, steps=2), tmp_path / "start").path
    recipe = prefers(tmp_path) | {"model": {"load": str(start), "set": DROPOUT}} | ({"adapt": adapt} if adapt else {})
    whole = train(recipe, tmp_path / "whole")
    for at in (2, 7):  # before the first snapshot, and after it
        halves = tmp_path / f"halves{at}"
        assert train(recipe, halves, report=stop_after(at)).steps == at
        assert train(recipe, halves, resume=True).steps == 10
        same_ending(tmp_path / "whole", halves)
    assert not whole.model.guide
    assert whole.metrics["margin"] > 0
    assert evaluate(whole.path).metrics == pytest.approx(whole.metrics, rel=1e-5)
    assert evaluate(whole.path, str(tmp_path / "b.jsonl")).metrics == pytest.approx(whole.metrics, rel=1e-5)
    train(recipe_for(TASKS["prompted"], *paths, steps=3), start, resume=True)
    for again in (lambda: evaluate(whole.path), lambda: train(recipe, tmp_path / "whole", resume=True)):
        with pytest.raises(InputError, match="of what it began with, are not those of its first step"):
            again()


def test_preferences_come_from_prompts_as_from_tables(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"q": "2+2", "good": "4", "bad": "5"}])
    data = Prompts(inner=Table(path=str(path)), source="{q}=", chosen="{good}", rejected="{bad}!")
    assert list(data.rows()) == [{"source": "2+2=", "chosen": "4", "rejected": "5!"}]
    with pytest.raises(ValueError, match="give both, or none"):
        Prompts(inner=Table(path="a"), rejected="{bad}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chosen": " "}, "line 4: .*'chosen' is empty"),
        ({"chosen": "no", "rejected": "no"}, "row 4: .*'chosen' and 'rejected' are the same tokens"),
        ({"rejected": "the " * 90}, r"row 4 has \d+ tokens; training.length .* allow 64, and 1 of the rows"),
        ({"rejected": None}, "line 4: .*'rejected'"),
    ],
)
def test_rows_that_prefer_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    recipe = prefers(tmp_path)
    rows = preferred(9, 1)
    rows[3] = {name: text for name, text in (rows[3] | change).items() if text is not None}
    write_rows(tmp_path / "a.jsonl", rows)
    says_no(capsys, tmp_path, recipe, 3, says)


def test_preferences_need_a_writer_and_their_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = prefers(tmp_path)
    says_no(capsys, tmp_path, recipe | {"model": encoder("tied")}, 2, "preferences predicts each token from those bef")
    recipe["data"]["columns"] = {"source": "source", "chosen": "chosen"}
    says_no(capsys, tmp_path, recipe, 3, "the data has no column 'rejected'; it has: source, chosen")


# Distillation


def plain_mixture(trainer: Trainer, tensors: dict[str, Tensor], weight: float, t: float) -> Tensor:
    """Hinton's loss over all that is asked, with its logits as the model gives them, a text at a time."""
    total = torch.zeros((), dtype=torch.float64)
    targets = tensors["label"][:, None] if "label" in tensors else tensors["targets"]
    for row, wanted in enumerate(targets):
        size = int(tensors["lengths"][row]) if "lengths" in tensors else tensors["ids"].shape[1]
        labels = {"segment": tensors["segment"][row : row + 1, :size]} if "segment" in tensors else None
        ours, theirs = (
            model(tensors["ids"][row : row + 1, :size], labels=labels)[0].view(-1, logits_of(model))
            for model in (trainer.model, *trainer.model.guide)
        )
        for place, right in enumerate(wanted.tolist()[: len(ours)]):
            if right == -100:
                continue
            p = torch.exp(theirs[place].detach() / t) / torch.exp(theirs[place].detach() / t).sum()
            q = torch.exp(ours[place] / t) / torch.exp(ours[place] / t).sum()
            total = total + (1 - weight) * -torch.log(torch.exp(ours[place][right]) / torch.exp(ours[place]).sum())
            total = total + weight * t * t * (p * (torch.log(p) - torch.log(q))).sum()
    return total


def logits_of(model: Model) -> int:
    """How many answers there are."""
    return len(model.spec.to_dict()["head"].get("labels", ())) or model.spec.vocabulary or 0


@pytest.mark.parametrize("at_once", [2**24, 700], ids=["whole", "chunks"])
@pytest.mark.parametrize("name", ["next_token", "masked", "classification"])
def test_a_student_s_loss_is_hinton_s_and_so_are_its_slopes(
    name: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anyformer.heads.base, "AT_ONCE", at_once)
    change = {"of": {"kind": "classification"}} if name == "classification" else {}
    trainer = trainer_of(taught(tmp_path, name, objective=change))
    tensors = dict(trainer.feed.at(2).tensors)
    loss = trainer.objective.loss(trainer.model, tensors)
    wanted = plain_mixture(trainer, tensors, 0.3, 1.7)
    torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=1e-10)
    agree(slopes(trainer.model, loss), slopes(trainer.model, wanted))
    assert not any(p.requires_grad or p.grad is not None for p in trainer.model.guide[0].parameters())
    assert not any(name.startswith("guide") for name, _ in trainer.model.named_parameters())


@pytest.mark.parametrize("name", ["next_token", "masked", "classification"])
def test_without_weight_a_student_is_as_if_it_had_no_teacher(name: str, tmp_path: Path) -> None:
    recipe = taught(tmp_path, name, objective={"weight": 0.0})
    student = train(recipe, tmp_path / "student")
    plain = TASKS[name].objective
    teacher = RunFolder.open(tmp_path / "teacher")
    own = {"tokenizer": read(teacher.recipe).data.to_dict()["tokenizer"]}
    alone = train(recipe | {"objective": plain, "data": recipe["data"] | own}, tmp_path / "alone")
    same_ending(student.path, alone.path)


def test_a_student_goes_on_exactly_and_with_its_own_teacher_alone(tmp_path: Path) -> None:
    recipe = taught(tmp_path, model=DROPOUT)
    whole = train(recipe, tmp_path / "whole")
    assert train(recipe, tmp_path / "halves", report=stop_after(4)).steps == 4
    weights = (tmp_path / "teacher" / "weights.safetensors").read_bytes()
    train(tutor(tmp_path, "next_token", 3), tmp_path / "teacher", resume=True)
    assert (tmp_path / "teacher" / "weights.safetensors").read_bytes() != weights
    with pytest.raises(InputError, match=r"of its teacher .* are not those of its first step"):
        train(recipe, tmp_path / "halves", resume=True)
    assert evaluate(whole.path).metrics == pytest.approx(whole.metrics, rel=1e-5)  # asks no teacher
    other = taught(tmp_path / "teacher", teacher=tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"made with other settings of .*objective.teacher"):
        train(recipe | {"objective": other["objective"]}, tmp_path / "halves", resume=True)


def test_a_student_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    recipe = taught(tmp_path, model=DROPOUT)
    train(recipe, tmp_path / "whole")
    assert train(recipe, tmp_path / "halves", report=stop_after(7)).steps == 7
    assert train(recipe, tmp_path / "halves", resume=True).steps == 10
    same_ending(tmp_path / "whole", tmp_path / "halves")
    info = RunFolder.open(tmp_path / "whole").info
    model = load(tmp_path / "whole")
    assert info["parameters"] == sum(p.numel() for p in model.parameters())
    assert len(str(info["guide"])) == 64


def test_a_guide_s_products_are_counted_once_and_its_weights_are_not(tmp_path: Path) -> None:
    recipe = taught(tmp_path)
    teacher = read(RunFolder.open(tmp_path / "teacher").recipe)
    data = recipe["data"] | {"tokenizer": teacher.to_dict()["data"]["tokenizer"]}
    alone = recipe | {"objective": "next_token", "data": data}
    guided, plain, whole = (plan(one, CPU) for one in (read(recipe), read(alone), teacher))
    assert guided.parameters == plain.parameters < whole.parameters
    assert guided.weights == plain.weights
    assert guided.flops_a_token == pytest.approx(plain.flops_a_token + whole.flops_a_token / 3)
    assert any("of the model that the objective looks at" in note for note in guided.notes)
    trainer = begun(recipe)
    assert trainer.flops_a_token == guided.flops_a_token
    preferences = begun(prefers(tmp_path))
    assert preferences.flops_a_token == pytest.approx(plan(read(prefers(tmp_path)), CPU).flops_a_token)


@pytest.mark.parametrize(
    ("name", "changes", "sections", "says"),
    [
        ("next_token", {"weight": 1.5}, {}, "objective.weight"),
        ("next_token", {"temperature": 0}, {}, "objective.temperature"),
        ("next_token", {"of": "seq2seq"}, {}, "of: should be next_token, masked without next_sentence, or classific"),
        ("masked", {"of": {"kind": "masked", "next_sentence": True}}, {}, "of: should be next_token"),
        ("next_token", {}, {"model": {"vocabulary": 301}}, "has a vocabulary of 90 and the model one of 301"),
        ("masked", {"of": "next_token"}, {"model": decoder()}, "the teacher .*next_token predicts each token from tho"),
    ],
)
def test_teachers_that_cannot_teach_this(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    changes: dict[str, Any],
    sections: dict[str, Any],
    says: str,
) -> None:
    recipe = taught(tmp_path, name)
    recipe["objective"] |= changes
    recipe |= {key: {**recipe[key], **value} for key, value in sections.items()}
    says_no(capsys, tmp_path, recipe, 2, says)


def test_teachers_that_are_not_there_or_speak_another_language(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = taught(tmp_path)
    gone = recipe["objective"] | {"teacher": str(tmp_path / "teachers")}
    says_no(capsys, tmp_path, recipe | {"objective": gone}, 3, "teachers: there is no such folder; nearest: 'teacher'")
    paths = [write_rows(tmp_path / side, toy_rows(23, n + 7)) for n, side in enumerate(("c.jsonl", "d.jsonl"))]
    train(recipe_for(TASKS["next_token"], *paths, steps=1, training={"length": 12}), tmp_path / "stranger")
    says_no(
        capsys, tmp_path, recipe | {"model": {"load": str(tmp_path / "stranger")}}, 2, "has another tokenizer than the"
    )
    short = {"position": {"kind": "learned", "length": 12}}
    train(recipe_for(TASKS["next_token"], *paths, steps=1, model=short, training={"length": 12}), tmp_path / "short")
    longer = taught(tmp_path, teacher=tmp_path / "short", training={"length": 13})
    says_no(capsys, tmp_path, longer, 2, r"training.length \(13\) is more than the teacher .* can take: .* 12 tokens")


def test_classes_are_the_same_in_the_same_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = taught(tmp_path, "classification", objective={"of": "classification"})
    head = {"kind": "classify", "labels": ["yes", "no", "perhaps"]}
    says_no(
        capsys,
        tmp_path,
        recipe | {"model": recipe["model"] | {"head": head}},
        2,
        "knows the classes no, perhaps, yes, and the model yes, no, perhaps; .* set model.head.labels",
    )
