"""The recipes multi30k and multi30k-prompt on the Flickr test set of 2016: BLEU of a beam search, and what each costs.

Trains both, unless their runs are there, and prints BLEU with its 95 % interval by a bootstrap over sentences, the
loss, the FLOPs of training, and minutes.

    python experiments/multi30k.py --threads 2 --out experiments/results/multi30k.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import anyformer as af
from anyformer.runs.folder import RunFolder
from anyformer.training.plan import plan

TEST = "multi30k/test_2016_flickr.en.gz,multi30k/test_2016_flickr.de.gz"


def measured(name: str, run: Path, threads: int | None) -> dict[str, Any]:
    """One recipe's figures."""
    if not run.exists():
        af.train(af.read(name), run, threads=threads, note=print)
    result = af.evaluate(run, TEST)
    folder = RunFolder.open(run)
    last = folder.read_metrics()[-1]
    cost = plan(af.read(folder.recipe), torch.device("cpu"), threads)
    found = {
        "bleu": result.metrics["bleu"],
        "bleu_interval": result.intervals["bleu"],
        "loss": result.metrics["loss"],
        "parameters": cost.parameters,
        "flops": cost.flops,
        "minutes": float(str(last["time"])) / 60,
        "threads": folder.info["threads"],
        "commit": folder.info["commit"],
        "seed": folder.info["seed"],
    }
    low, high = found["bleu_interval"]
    print(
        f"{name}: BLEU {found['bleu']:.2f} ({low:.2f} to {high:.2f}), loss {found['loss']:.4f}, "
        f"{found['flops']:.3g} FLOPs, {found['minutes']:.1f} minutes"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    names = ("multi30k", "multi30k-prompt")
    found = {name: measured(name, given.runs / name, given.threads) for name in names}
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
