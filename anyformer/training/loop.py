"""The training loop: batches in, weights out, and nothing lost on the way.

What a step does depends on (recipe, step, state) alone: a run that is stopped, killed and resumed ends with the weights
of one that was never stopped, bit for bit, for budgets in steps, tokens and FLOPs, on one machine with one number of
threads.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from anyformer.core.errors import NumericalStop, ResourceError
from anyformer.core.model import Model
from anyformer.core.tape import Tape
from anyformer.data.corpus import Corpus
from anyformer.models.checkpoint import declaration
from anyformer.recipes.schema import Recipe
from anyformer.runs.folder import RunFolder
from anyformer.runs.pack import pack_state, unpack_state
from anyformer.runs.snapshot import Snapshot
from anyformer.training.averaging import averaged, follow, lent, started
from anyformer.training.budget import Spent, in_tokens, progress, total_steps
from anyformer.training.flops import Sketch, peak
from anyformer.training.measure import measure
from anyformer.training.objectives.base import Batch, Objective, placed
from anyformer.training.optimizers.base import clip, scale_rates
from anyformer.training.scores import Result

LOG_EVERY = 5  # steps
Loss = Callable[..., Tensor]


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

    def __init__(self, recipe: Recipe, model: Model, corpus: Corpus[Any], report: Callable[[Report], None]) -> None:
        self.recipe, self.model, self.corpus, self.report = recipe, model, corpus, report
        self.objective = objective_of(recipe)
        self.objective.check(model)
        self.device = next(model.parameters()).device
        self.feed = self.objective.feed(corpus, model, recipe.training, recipe.seed)
        self.optimizer = recipe.optimizer.make(model)
        self.budget = recipe.budget
        if self.budget.flops is not None:
            self.budget = in_tokens(self.budget, self.flops_a_token)
        # the running mean of the weights, where there is one
        self.mean = None if recipe.training.ema is None else started(model.state_dict())
        self.final: dict[str, Tensor] | None = None  # the mean of the last snapshots, read once
        self.loss = self._compiled(self.objective.loss)
        self.spent = Spent()
        self.latest: Result | None = None  # the last evaluation
        self.best: float = inf
        self.saved: int | None = None  # the step of the newest snapshot
        torch.manual_seed(recipe.seed)  # dropout

    @property
    def tokens_per_step(self) -> float:
        """On average, where batches differ."""
        return self.feed.tokens * self.recipe.training.accumulate

    @cached_property
    def flops_a_token(self) -> float:
        """FLOPs of training, by the matrix products of a row of the usual length; a guide's among them."""
        training, sketch = self.recipe.training, Sketch(self.recipe.adapted)
        row = max(1, round(self.feed.tokens / training.batch))
        forward = sketch.forward(training.batch, row, training.precision)
        return sketch.flops_a_token(forward, training.checkpointing) + guide_flops_a_token(self.recipe, row)

    @property
    def finished(self) -> bool:
        """Whether the budget is used."""
        return progress(self.budget, self.spent) >= 1

    def train(self, run: RunFolder, asked_to_stop: Callable[[], bool]) -> None:
        """Until the budget is used or somebody asks; the last step is measured if it ends the budget, and saved."""
        self.model.train()
        share = self.flops_a_token / peak(self.device, self.recipe.training.precision)  # of the peak, a token a second
        since, began, tokens = self.spent.seconds, time.monotonic(), self.spent.tokens
        while not self.finished and not asked_to_stop():
            values = self.step()
            self.spent.seconds = since + time.monotonic() - began
            done = self.spent.steps
            values |= {"time": self.spent.seconds, "tokens": self.spent.tokens}
            values["tokens_per_s"] = (self.spent.tokens - tokens) / max(time.monotonic() - began, 1e-9)
            values["mfu"] = values["tokens_per_s"] * share
            if done % LOG_EVERY == 0 or done == 1:
                run.append_metrics({"step": done, **values})
            self.report(Report(done, progress(self.budget, self.spent), values))
            # measured before it is saved, so that a snapshot at the end of the budget has nothing left to do
            if len(self.corpus.held_out) and (self.finished or done % self.recipe.evaluate.every == 0):
                self.evaluate(run)
            if self.finished or done % self.recipe.snapshots.every == 0:
                self.save(run)
        if self.saved != self.spent.steps:
            self.save(run)
        if self.finished and self.recipe.snapshots.average is not None and len(self.corpus.held_out):
            self.evaluate(run)  # the average is made of snapshots, and so can be measured only now

    def step(self) -> dict[str, float]:
        """One change of the weights."""
        recipe, number = self.recipe, self.spent.steps
        scale = recipe.schedule.scale(number, total_steps(self.budget, self.spent, self.tokens_per_step))
        scale_rates(self.optimizer, scale)
        self.optimizer.zero_grad(set_to_none=True)
        shares: list[Tensor] = []  # of the loss
        batches = self.batches(number)
        count = max(1, sum(batch.count for batch in batches))
        for batch in batches:
            tape, tensors = Tape(), placed(batch.tensors, self.device)  # the tape: for losses beside the main one
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.training.precision == "bfloat16"):
                loss = self.loss(self.model, tensors, recipe.training.checkpointing, tape) / count
            beside = [other / len(batches) for other in tape.losses.values()]
            sum(beside, loss).backward()
            shares.append(loss.detach())
        norm = clip(self.model, recipe.training.clip)
        loss = float(torch.stack(shares).sum())
        if not (isfinite(loss) and isfinite(norm)):
            raise self._diverged(loss, norm)
        self.optimizer.step()
        self.spent.steps += 1
        if self.mean is not None and recipe.training.ema is not None:
            follow(self.mean, self.model.state_dict(), recipe.training.ema, self.spent.steps)
        self.spent.tokens += sum(batch.tokens for batch in batches)
        return {"loss": loss, "lr": recipe.optimizer.lr * scale, "grad_norm": norm}

    def batches(self, step: int) -> list[Batch]:
        """The batches that a step adds up."""
        times = self.recipe.training.accumulate
        return [self.feed.at(step * times + part) for part in range(times)]

    def evaluate(self, run: RunFolder) -> None:
        """On held-out text; the best weights so far are kept."""
        mean, batches = self.averaged(run), self.recipe.evaluate.batches
        with nullcontext() if mean is None else lent(self.model, mean):
            result = measure(self.objective, self.model, self.corpus, self.recipe.training, batches)
        loss = result.metrics["loss"]
        if not isfinite(loss):
            raise self._stop(self.spent.steps, f"the loss on held-out text is {loss}")
        run.append_metrics({"step": self.spent.steps, "time": self.spent.seconds, "evaluate": result.metrics})
        if loss < self.best:
            self.best = loss
            run.write_weights(self.model.state_dict() if mean is None else mean, best=True)
        self.latest = result
        self.report(Report(self.spent.steps, progress(self.budget, self.spent), evaluation=result))

    def weights(self, run: RunFolder) -> Mapping[str, Tensor]:
        """What the run is worth."""
        mean = self.averaged(run)
        return self.model.state_dict() if mean is None else mean

    def averaged(self, run: RunFolder) -> Mapping[str, Tensor] | None:
        """The running mean of the weights, or at the run's end the mean of snapshots; None: neither is asked for."""
        count = self.recipe.snapshots.average
        if self.mean is not None or count is None or not self.finished or self.saved != self.spent.steps:
            return self.mean
        if self.final is None:
            self.final = averaged(_group(snapshot, "model") for snapshot in run.newest_snapshots(count))
        return self.final

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
            **{f"mean.{name}": tensor for name, tensor in (self.mean or {}).items()},
        }
        known: dict[str, Any] = {
            "spent": asdict(self.spent),
            "best": self.best if isfinite(self.best) else None,
            "optimizer": facts,
        }
        try:
            settings = self.recipe.snapshots
            path = run.save_snapshot(Snapshot(self.spent.steps, tensors, known), settings.keep, settings.every)
            self.saved = self.spent.steps
            run.write_weights(self.weights(run))
        except OSError as error:
            raise ResourceError(f"step {self.spent.steps} could not be saved: {error}; {self._newest()}") from error
        self.report(Report(self.spent.steps, progress(self.budget, self.spent), saved=str(path)))

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot exactly."""
        facts: dict[str, Any] = dict(snapshot.facts)
        self.model.load_state_dict(_group(snapshot, "model"))
        self.optimizer.load_state_dict(unpack_state(_group(snapshot, "optimizer"), facts["optimizer"]))  # pyright: ignore
        rng = _group(snapshot, "rng")
        torch.set_rng_state(rng["cpu"])
        if self.device.type == "cuda" and "cuda" in rng:
            torch.cuda.set_rng_state(rng["cuda"], self.device)
        if self.mean is not None:
            self.mean = {name: tensor.to(self.device) for name, tensor in _group(snapshot, "mean").items()}
        self.spent, self.saved = Spent(**facts["spent"]), snapshot.step
        self.best = inf if facts["best"] is None else facts["best"]

    def _compiled(self, loss: Loss) -> Loss:
        """Compiled where that pays: by measurement not on a CPU, where minutes of compiling buy 1 %.

        Where it cannot be (no compiler on this machine, say), a warning tells why, and the run goes on without.
        """
        choice = self.recipe.training.compile
        if choice == "never" or (choice == "auto" and self.device.type == "cpu"):
            return loss
        fast = torch.compile(loss)

        def careful(*arguments: Any) -> Tensor:
            from torch._dynamo.exc import TorchDynamoException

            try:
                return fast(*arguments)
            except TorchDynamoException as error:
                reason = " ".join(str(error).split())[:200]
                warnings.warn(f"the step cannot be compiled here, and runs as it is: {reason}", stacklevel=2)
                self.loss = loss
                return loss(*arguments)

        return careful

    def _diverged(self, loss: float, norm: float) -> NumericalStop:
        """What a step that has no number for its loss or its gradient is to be stopped with."""
        what = f"the loss is {loss}" if not isfinite(loss) else f"the gradient's norm is {norm}"
        bad = [n for n, p in self.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        if bad:
            what += f"; the gradient is not finite from {bad[0]} on"
        first = self.spent.steps * self.recipe.training.accumulate
        places = [self.feed.origin(first + part) for part in range(self.recipe.training.accumulate)]
        return self._stop(self.spent.steps + 1, f"{what}; its batch is of {'; '.join(places)}")

    def _stop(self, step: int, what: str) -> NumericalStop:
        return NumericalStop(f"step {step}: {what}; {self._newest()}; try a lower optimizer.lr or training.clip")

    def _newest(self) -> str:
        return "there is no snapshot yet" if self.saved is None else f"the last snapshot is of step {self.saved}"


def objective_of(recipe: Recipe) -> Objective[Any]:
    """What the recipe minimises."""
    assert isinstance(recipe.objective, Objective)
    return recipe.objective


def guide_flops_a_token(recipe: Recipe, row: int) -> float:
    """FLOPs of the forward pass of what the objective looks at beside the model; 0 where there is nothing."""
    guide, training = objective_of(recipe).guide, recipe.training
    if guide is None:
        return 0.0
    sketch = Sketch(recipe.adapted if guide.path is None else declaration(guide.path))
    return sketch.pass_a_token(sketch.forward(training.batch, row, training.precision))


def _group(snapshot: Snapshot, name: str) -> dict[str, Tensor]:
    """A snapshot's tensors of one kind, under their own names."""
    return {key.partition(".")[2]: tensor for key, tensor in snapshot.tensors.items() if key.startswith(f"{name}.")}
