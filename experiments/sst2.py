"""The recipe sst2 beside a naive Bayes classifier of single words, on the 872 validation phrases.

Trains the recipe with several seeds, unless their runs are there, and prints the accuracies, their mean, and the paired
difference to naive Bayes with its 95 % interval by a bootstrap over phrases: phrases are drawn, seeds are averaged.

    python experiments/sst2.py --seeds 3 --threads 2 --out experiments/results/sst2.json
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import anyformer as af
from anyformer.data.base import Row
from anyformer.data.corpus import text_data
from anyformer.runs.folder import RunFolder
from anyformer.training.scores import scored


def naive_bayes(train: list[Row], rows: list[Row]) -> list[str]:
    """Multinomial naive Bayes of words between spaces (Wang & Manning 2012), counts smoothed by one."""
    counts = {label: Counter() for label in sorted({row["label"] for row in train})}
    for row in train:
        counts[row["label"]].update(row["text"].split())
    words = set().union(*counts.values())
    frequency = Counter(row["label"] for row in train)
    scores = {
        label: {word: np.log((count[word] + 1) / (count.total() + len(words))) for word in words}
        for label, count in counts.items()
    }
    return [
        max(
            counts,
            key=lambda label: (
                np.log(frequency[label] / len(train)) + sum(scores[label].get(w, 0.0) for w in row["text"].split())
            ),
        )
        for row in rows
    ]


def mean_of(values: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """The mean over phrases and its 95 % interval."""
    marks = {"sum": values, "rows": np.ones(len(values))}
    result = scored(marks, {"mean": lambda sums: sums["sum"] / sums["rows"]})
    return result.metrics["mean"], result.intervals["mean"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    recipe = af.read("sst2")
    data = text_data(recipe.data)
    train, rows = list(data.rows()), list(data.validation() or ())
    truth = np.array([row["label"] for row in rows])
    right, minutes, commits = [], [], []
    for seed in range(given.seeds):
        run = given.runs / f"sst2-{seed}"
        if not run.exists():
            af.train(af.read("sst2", [f"seed={seed}"]), run, threads=given.threads, note=print)
        said = [answer["label"] for answer in af.predict(run, [{"text": row["text"]} for row in rows])]
        right.append(np.array(said) == truth)
        folder = RunFolder.open(run)
        minutes.append(float(str(folder.read_metrics()[-1]["time"])) / 60)
        commits.append(folder.info["commit"])
        print(f"seed {seed}: {right[-1].mean():.4f} in {minutes[-1]:.1f} minutes")
    bayes = np.array(naive_bayes(train, rows)) == truth
    of_seeds = np.mean(right, axis=0)
    mean, mean_interval = mean_of(of_seeds)
    difference, (low, high) = mean_of(of_seeds - bayes)
    print(f"mean of {given.seeds} seeds {mean:.4f}; naive Bayes {bayes.mean():.4f}")
    print(f"difference {difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}")
    if given.out is not None:
        result = {
            "accuracy": [float(one.mean()) for one in right],
            "mean": mean,
            "mean_interval": mean_interval,
            "naive_bayes": float(bayes.mean()),
            "difference": difference,
            "difference_interval": [low, high],
            "minutes": minutes,
            "threads": given.threads,
            "commits": commits,
        }
        given.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
