"""Break one thing at a time in a copy of the package, and name the laws that catch it.

`python tests/laws/mutations.py` does it for all; minutes.

A mutation is a text that stands exactly once in one file, and what is put in its place. None may survive. A name on the
command line runs that mutation alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASES = ("patterns.sinks", "attention.linear", "memory.rmt", "composition.streaming", "composition.t5-shared")
COMPILED = ("compile", "export")  # seconds each; nothing below needs them


@dataclass(frozen=True)
class Mutation:
    """cases: those that the laws are run on."""

    name: str
    file: str
    old: str
    new: str
    cases: tuple[str, ...] = CASES


MUTATIONS = (
    Mutation("mask off by one", "patterns/causal.py", "k.time <= q.time", "k.time <= q.time + 1"),
    Mutation(
        "position offset after a cut",
        "core/clock.py",
        "where = Where(time, time[..., None], names)",
        "where = Where(time, (time - now[:, None])[..., None], names)",
    ),
    Mutation("leaked padding key", "kernels/attention.py", " & self.k_where.real[:, None]", ""),
    Mutation(
        "padding enters the sums", "attention/linear.py", "feature(k) * where.real[:, None, :, None]", "feature(k)"
    ),
    Mutation(
        "sink evicted", "stores/base.py", "first + (time - first) % max(room, 1)", "time % (first + max(room, 1))"
    ),
    Mutation("stale state accepted", "core/state.py", "self.mark.used = True", "self.mark.used = False"),
    Mutation("fork that shares tensors", "core/state.py", "tree_map(torch.clone, self.past)", "self.past"),
    Mutation(
        "memory read one token early",
        "memory/recurrent.py",
        "MemoryPast(memory, coming, inner, start, before)",
        "MemoryPast(choose(ends, coming, memory), coming, inner, start, before)",
    ),
    Mutation(
        "memory of the text before",
        "memory/recurrent.py",
        "coming = choose(piece.fresh, self.first(begins.shape[0]).to(coming.dtype), coming)",
        "",
    ),
    Mutation("window store overwritten before it is read", "stores/base.py", "<= room - last + 1", "<= room"),
    Mutation(
        "gradient cut at a segment",
        "memory/recurrent.py",
        "y[:, -self.slots :].to(coming.dtype)",
        "y[:, -self.slots :].to(coming.dtype).detach()",
    ),
    Mutation("trim off by one", "core/model.py", "state.past.since + keep", "state.past.since + 1 + keep"),
    Mutation("forget off by one", "stores/base.py", "return time >= until[:, None]", "return time > until[:, None]"),
    Mutation(
        "Ref built twice",
        "core/spec.py",
        "built = self._earlier(part.path, child.path) if",
        "built = __import__('copy').deepcopy(self._earlier(part.path, child.path)) if",
    ),
    Mutation("Ref registered twice", "core/layer.py", "self.__dict__[name] = built", "self.add_module(name, built)"),
    Mutation(
        "one token more than the capacity", "core/call.py", "if need > mark.capacity:", "if need > mark.capacity + 1:"
    ),
    Mutation(
        "numbers made on the default device", "positions/rotary.py", ", dtype=dtype, device=x.device)", ", dtype=dtype)"
    ),
    Mutation(
        "angles in the model's own precision",
        "positions/rotary.py",
        "torch.promote_types(x.dtype, torch.float32)",
        "x.dtype",
    ),
    Mutation(
        "seed without the path",
        "core/build.py",
        'f"{seed} {address}"',
        'f"{seed} {len(list(module.parameters()))}"',
        ("norms.rms",),
    ),
)

RUN = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from compositions import compositions
import anyformer
from anyformer.laws.cases import all_cases
from anyformer.laws.verdict import judge, laws_of
assert anyformer.__file__.startswith(sys.argv[2]), anyformer.__file__
names, skipped = json.loads(sys.argv[3]), json.loads(sys.argv[4])
for case in (case for case in [*all_cases(), *compositions()] if case.name in names):
    for law in (law for law in laws_of(case) if law not in skipped):
        verdict = judge(case, law)
        if verdict.outcome == "FAILED":
            print(json.dumps([law, case.name, verdict.text]))
"""


def changed(mutation: Mutation) -> str:
    """The file's text with the mutation in it."""
    text = (ROOT / "anyformer" / mutation.file).read_text()
    count = text.count(mutation.old)
    assert count == 1, f"{mutation.name}: {mutation.old!r} stands {count} times in {mutation.file}"
    return text.replace(mutation.old, mutation.new)


def caught(mutation: Mutation | None) -> list[list[str]]:
    """[law, case, first difference] of whatever broke; without a mutation nothing may."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "anyformer", Path(folder) / "anyformer", ignore=shutil.ignore_patterns("__pycache__"))
        if mutation is not None:
            (Path(folder) / "anyformer" / mutation.file).write_text(changed(mutation))
        cases = CASES if mutation is None else mutation.cases
        arguments = [str(Path(__file__).parent), folder, json.dumps(cases), json.dumps(COMPILED)]
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            env={**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{mutation and mutation.name}: {done.stderr[-500:]}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def main(names: list[str]) -> int:
    """Prints a line for each mutation; 1 if one survives."""
    assert not names or set(names) <= {mutation.name for mutation in MUTATIONS}, "no such mutation"
    survived = 0
    if not names:
        broken = caught(None)
        assert not broken, f"unchanged, the laws do not hold: {broken[0]}"
    for mutation in MUTATIONS:
        if names and mutation.name not in names:
            continue
        broken = caught(mutation)
        survived += not broken
        laws = Counter(law for law, _, _ in broken)
        print(f"{mutation.name}: {', '.join(laws) or 'SURVIVED'}", flush=True)
        if broken:
            print(f"    {broken[0][1]}-{broken[0][0]}: {broken[0][2][:140]}", flush=True)
    return min(survived, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
