"""Kill a training run at random moments, resume it each time, and compare it with one that was left alone.

    python tests/kill_resume.py [--kills 20] [--recipe shakespeare] [--set KEY=VALUE …] [--seed N]

Both runs must end with the same bytes in weights.safetensors, the same metrics but for the clocks, and no snapshot that
was announced may be lost. A kill is SIGKILL, at a random moment after the process has begun to work, such that all
kills together are spread over one run; every second one may come when a save begins, so that saves are hit too.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CLOCKS = ("time", "tokens_per_s", "mfu")


@dataclass(frozen=True)
class Outcome:
    """kills: how many hit a running process; saving: how many of them hit a save. lost: announced snapshots."""

    kills: int
    saving: int
    lost: list[str]
    weights_equal: bool
    metrics_equal: bool

    @property
    def well(self) -> bool:
        return self.weights_equal and self.metrics_equal and not self.lost

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.saving} inside a save: weights {'equal' if self.weights_equal else 'DIFFER'}, "
            f"metrics {'equal' if self.metrics_equal else 'DIFFER'}, announced snapshots lost: {len(self.lost)}"
        )


def kill_and_resume(words: Sequence[str], folder: Path, kills: int, seed: int = 0) -> Outcome:
    """words: the recipe and its changes, as `anyformer train` takes them. The runs are left in `folder`."""
    draw = random.Random(seed)
    straight, killed = folder / "straight", folder / "killed"
    log = folder / "straight.log"
    if _start(words, straight, log).wait() != 0:
        raise SystemExit(f"the run failed: {log.read_text()}")
    seconds = [json.loads(line)["time"] for line in (straight / "metrics.jsonl").read_text().splitlines()][-1]
    hits, saving, lost = 0, 0, []
    for number in range(kills):
        log = folder / f"{number}.log"
        process = _start(words, killed, log)
        while not log.stat().st_size and process.poll() is None:  # it says first where it begins
            time.sleep(0.001)
        moment = time.monotonic() + draw.uniform(0, 2) * seconds / kills
        while time.monotonic() < moment and process.poll() is None:
            if number % 2 and _is_saving(killed) and draw.random() < 0.5:
                break
            time.sleep(0.001)
        hit = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        hits, saving = hits + hit, saving + (hit and _is_saving(killed))
        lost += _lost(killed, log)
    log = folder / "last.log"
    if _start(words, killed, log).wait() != 0:
        raise SystemExit(f"the last resume failed: {log.read_text()}")
    return Outcome(
        hits,
        saving,
        lost,
        (straight / "weights.safetensors").read_bytes() == (killed / "weights.safetensors").read_bytes(),
        _metrics(straight) == _metrics(killed),
    )


def _start(words: Sequence[str], out: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        command = [sys.executable, "-m", "anyformer", "train", *words, "--out", str(out), "--resume"]
        return subprocess.Popen(command, stdout=said, stderr=said)


def _is_saving(run: Path) -> bool:
    """Whether a file or a snapshot is half written."""
    return any(run.glob(".anyformer-*.tmp")) or any(run.glob("snapshots/*.tmp"))


def _lost(run: Path, log: Path) -> list[str]:
    """What the log announces last as saved and the folder does not hold."""
    announced = re.findall(r"^step \d+: saved (.+)$", log.read_text(), re.MULTILINE)
    return [path for path in announced[-1:] if not os.path.isdir(path) and not _newer(run, Path(path))]


def _newer(run: Path, path: Path) -> bool:
    """A later one has taken its place: it may have been saved when the kill kept it from being announced."""
    return any(other.name > path.name for other in (run / "snapshots").glob("step-*") if other.suffix != ".tmp")


def _metrics(run: Path) -> list[dict[str, object]]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in record.items() if key not in CLOCKS} for record in records]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--recipe", default="shakespeare")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    changes = ["budget.steps=200", "snapshots.every=5", "evaluate.every=50", "evaluate.batches=4", *given.set]
    with tempfile.TemporaryDirectory() as scratch:
        outcome = kill_and_resume(
            [given.recipe, *(word for change in changes for word in ("--set", change))],
            Path(scratch),
            given.kills,
            given.seed,
        )
    print(outcome)
    sys.exit(not outcome.well)
