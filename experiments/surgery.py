"""A published model with one part swapped: its loss on English text before, and after two minutes of fine-tuning.

The model is stories260K, a Llama of 260,000 weights trained on TinyStories, with a context of 512; the text is
Shakespeare's. Before: on the text's last tenth, which is held out of the fine-tuning. The same by commands:

    anyformer evaluate stories260K --data held-out.txt --set 'body.blocks.*.mixer.pattern=causal & window(96)'

    python experiments/surgery.py stories260K tinyshakespeare.txt --threads 2 --out experiments/results/surgery.json
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import anyformer as af
from anyformer.training.scores import Result

PATTERN, POSITION = "body.blocks.*.mixer.pattern", "body.blocks.*.mixer.position"
VARIANTS: dict[str, dict[str, str]] = {
    "as published": {},
    "window of 96": {PATTERN: "causal & window(96)"},
    "4 sinks and a window of 96": {PATTERN: "causal & (sinks(4) | window(96))"},
    "no positions (NoPE)": {POSITION: "none"},
    "ALiBi": {POSITION: "alibi"},
}
SECONDS = 120


def recipe(model: str, changes: dict[str, str], text: Path) -> dict[str, Any]:
    return {
        "model": {"load": model, "set": changes},
        "data": {"kind": "text", "path": str(text)},
        "optimizer": {"lr": 1e-3},
        "schedule": {"kind": "cosine", "warmup": 20, "final": 0.1},
        "training": {"batch": 8, "length": 512, "clip": 1.0},
        "budget": {"seconds": SECONDS},
        "evaluate": {"every": 10**6},
        "snapshots": {"every": 10**6},
    }


def told(result: Result) -> dict[str, Any]:
    return {"loss": result.metrics["loss"], "interval": result.intervals["loss"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # what is new and dropped: nothing but patterns and positions is touched here
    found: dict[str, Any] = {}
    whole = given.text.read_text("utf-8")
    cut = len(whole) * 9 // 10
    with tempfile.TemporaryDirectory() as name:
        training, held_out = Path(name) / "training.txt", Path(name) / "held-out.txt"
        training.write_text(whole[:cut], "utf-8")
        held_out.write_text(whole[cut:], "utf-8")
        for variant, changes in VARIANTS.items():
            before = af.evaluate(given.model, str(held_out), changes=changes)
            run = Path(name) / variant.replace(" ", "-")
            done = af.train(recipe(given.model, changes, training), run, threads=given.threads)
            after = af.evaluate(run, str(held_out))
            found[variant] = {"before": told(before), "after": told(after), "steps": done.steps}
            print(
                f"{variant}: {before.metrics['loss']:.3f} before, {after.metrics['loss']:.3f} after {done.steps} steps"
            )
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
