"""The training loop: batches in, weights out, and nothing lost on the way.

What a step does depends on (recipe, step, state) alone: a run that is stopped, killed and resumed ends with the weights
of one that was never stopped, bit for bit, for budgets in steps and tokens, on one machine with one number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from anyformer.core.errors import ConfigError, InputError, NumericalStop, ResourceError
from anyformer.core.model import Model
from anyformer.data.batches import Batches
from anyformer.data.corpus import Corpus
from anyformer.recipes.schema import Recipe
from anyformer.runs.folder import RunFolder
from anyformer.runs.pack import pack_state, unpack_state
from anyformer.runs.snapshot import Snapshot
from anyformer.training.budget import Spent, progress, total_steps
from anyformer.training.evaluate import Result, measure
from anyformer.training.objectives.next_token import NextToken
from anyformer.training.optimizer import clip, make_optimizer

LOG_EVERY = 5  # steps
Losses = Callable[..., tuple[Tensor, Tensor]]


@dataclass
class Report:
    """One thing that happened. values: as in metrics.jsonl. saved: the snapshot that is now safe."""

    step: int
    progress: float
    values: dict[str, float] = field(default_factory=dict)
    evaluation: Result | None = None
    saved: str | None = None


class Trainer:
    """One run's model, optimiser and clock.

    Made before the run folder is: what cannot be trained is refused here, and leaves nothing behind.
    """

    def __init__(self, recipe: Recipe, model: Model, corpus: Corpus, report: Callable[[Report], None]) -> None:
        self.recipe, self.model, self.corpus, self.report = recipe, model, corpus, report
        train = recipe.training
        assert isinstance(recipe.objective, NextToken)  # the one row there is
        recipe.objective.check(model)
        if model.longest is not None and train.length > model.longest:
            raise ConfigError(
                f"training.length ({train.length}) is more than the model's positions can tell apart ({model.longest})"
            )
        self.device = next(model.parameters()).device
        self.batches = Batches(corpus.train, train.batch * train.accumulate, train.length, recipe.seed)
        if len(corpus.held_out) == 1:
            raise InputError(
                "the held-out text is 1 token, from which nothing can be measured; give more text, raise "
                "data.held_out, or set it to 0 to measure nothing"
            )
        self.optimizer = make_optimizer(recipe.optimizer, model)
        self.losses = self._compiled(recipe.objective.losses)
        self.spent = Spent()
        self.latest: Result | None = None  # the last evaluation
        self.best: float = inf
        self.saved: int | None = None  # the step of the newest snapshot
        torch.manual_seed(recipe.seed)  # dropout

    @property
    def tokens_per_step(self) -> int:
        return self.batches.batch * self.batches.length

    @property
    def finished(self) -> bool:
        """Whether the budget is used."""
        return progress(self.recipe.budget, self.spent) >= 1

    def train(self, run: RunFolder, asked_to_stop: Callable[[], bool]) -> None:
        """Until the budget is used or somebody asks; the last step is measured if it ends the budget, and saved."""
        self.model.train()
        since, began, tokens = self.spent.seconds, time.monotonic(), self.spent.tokens
        while not self.finished and not asked_to_stop():
            values = self.step()
            self.spent.seconds = since + time.monotonic() - began
            done = self.spent.steps
            values |= {"time": self.spent.seconds, "tokens": self.spent.tokens}
            values["tokens_per_s"] = (self.spent.tokens - tokens) / max(time.monotonic() - began, 1e-9)
            if done % LOG_EVERY == 0 or done == 1:
                run.append_metrics({"step": done, **values})
            self.report(Report(done, progress(self.recipe.budget, self.spent), values))
            # measured before it is saved, so that a snapshot at the end of the budget has nothing left to do
            if len(self.corpus.held_out) and (self.finished or done % self.recipe.evaluate.every == 0):
                self.evaluate(run)
            if self.finished or done % self.recipe.snapshots.every == 0:
                self.save(run)
        if self.saved != self.spent.steps:
            self.save(run)

    def step(self) -> dict[str, float]:
        """One change of the weights."""
        recipe, number = self.recipe, self.spent.steps
        scale = recipe.schedule.scale(number, total_steps(recipe.budget, self.spent, self.tokens_per_step))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.optimizer.lr * scale
        ids, documents = self.batch(number)
        self.optimizer.zero_grad(set_to_none=True)
        shares: list[Tensor] = []  # of the loss
        count = self.predicted(ids, documents)
        rows = recipe.training.batch
        for part in range(recipe.training.accumulate):
            some = slice(part * rows, (part + 1) * rows)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.training.precision == "bfloat16"):
                losses, _ = self.losses(
                    self.model,
                    ids[some],
                    None if documents is None else documents[some],
                    checkpoint=recipe.training.checkpointing,
                )
            loss = losses.sum() / count
            loss.backward()
            shares.append(loss.detach())
        norm = clip(self.model, recipe.training.clip)
        loss = float(torch.stack(shares).sum())
        if not (isfinite(loss) and isfinite(norm)):
            raise self._diverged(loss, norm)
        self.optimizer.step()
        self.spent.steps += 1
        self.spent.tokens += self.tokens_per_step
        return {"loss": loss, "lr": recipe.optimizer.lr * scale, "grad_norm": norm}

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """ids (B, T + 1) and, where the model tells them apart, the documents that they belong to."""
        ids = torch.from_numpy(self.batches.at(step)).to(self.device)
        if "document" not in self.model.labels:
            return ids, None
        return ids, torch.from_numpy(self.batches.documents(step)).to(self.device)

    def predicted(self, ids: Tensor, documents: Tensor | None) -> int | Tensor:
        """How many tokens of the step are predicted, its `accumulate` parts together: the loss is their mean."""
        if documents is None:
            return ids.shape[0] * (ids.shape[1] - 1)
        return (documents[:, 1:] == documents[:, :-1]).sum().clamp(min=1)

    def evaluate(self, run: RunFolder) -> None:
        """On held-out text; the best weights so far are kept."""
        settings = self.recipe.evaluate
        result = measure(
            self.model, self.corpus.held_out, self.batches.length, self.recipe.training.batch, settings.batches
        )
        loss = result.metrics["loss"]
        if not isfinite(loss):
            raise self._stop(self.spent.steps, f"the loss on held-out text is {loss}")
        run.append_metrics({"step": self.spent.steps, "time": self.spent.seconds, "evaluate": result.metrics})
        if loss < self.best:
            self.best = loss
            run.write_weights(self.model.state_dict(), best=True)
        self.latest = result
        self.report(Report(self.spent.steps, progress(self.recipe.budget, self.spent), evaluation=result))

    def save(self, run: RunFolder) -> None:
        """A snapshot, then the weights; announced when they are safe. A full disk stops the run, and loses nothing."""
        state, facts = pack_state(self.optimizer.state_dict())
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        tensors = {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"optimizer.{name}": tensor for name, tensor in state.items()},
            **{f"rng.{name}": tensor for name, tensor in rng.items()},
        }
        known: dict[str, Any] = {
            "spent": asdict(self.spent),
            "best": self.best if isfinite(self.best) else None,
            "optimizer": facts,
        }
        try:
            path = run.save_snapshot(Snapshot(self.spent.steps, tensors, known), self.recipe.snapshots.keep)
            self.saved = self.spent.steps
            run.write_weights(self.model.state_dict())
        except OSError as error:
            raise ResourceError(f"step {self.spent.steps} could not be saved: {error}; {self._newest()}") from error
        self.report(Report(self.spent.steps, progress(self.recipe.budget, self.spent), saved=str(path)))

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot exactly."""
        facts: dict[str, Any] = dict(snapshot.facts)
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "rng": {}}
        for name, tensor in snapshot.tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        self.model.load_state_dict(groups["model"])
        self.optimizer.load_state_dict(unpack_state(groups["optimizer"], facts["optimizer"]))  # pyright: ignore
        torch.set_rng_state(groups["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in groups["rng"]:
            torch.cuda.set_rng_state(groups["rng"]["cuda"], self.device)
        self.spent, self.saved = Spent(**facts["spent"]), snapshot.step
        self.best = inf if facts["best"] is None else facts["best"]

    def _compiled(self, losses: Losses) -> Losses:
        """Compiled where that pays: by measurement not on a CPU, where minutes of compiling buy 1 %."""
        choice = self.recipe.training.compile
        if choice == "never" or (choice == "auto" and self.device.type == "cpu"):
            return losses
        return torch.compile(losses)

    def _diverged(self, loss: float, norm: float) -> NumericalStop:
        """What a step that has no number for its loss or its gradient is to be stopped with."""
        what = f"the loss is {loss}" if not isfinite(loss) else f"the gradient's norm is {norm}"
        bad = [n for n, p in self.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        if bad:
            what += f"; the gradient is not finite from {bad[0]} on"
        found = sorted(set(self.batches.documents(self.spent.steps).flatten().tolist()))
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        documents = ", ".join(map(str, found[:8]))
        return self._stop(self.spent.steps + 1, f"{what}; its batch is of the documents {documents}{more}")

    def _stop(self, step: int, what: str) -> NumericalStop:
        return NumericalStop(f"step {step}: {what}; {self._newest()}; try a lower optimizer.lr or training.clip")

    def _newest(self) -> str:
        return "there is no snapshot yet" if self.saved is None else f"the last snapshot is of step {self.saved}"
