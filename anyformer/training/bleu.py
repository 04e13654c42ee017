"""BLEU (Papineni et al. 2002) as sacreBLEU counts it (Post 2018), from counts that add up over sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anyformer.core.extras import need

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from anyformer.training.objectives.base import Sums


def reference(text: str) -> NDArray[np.int64]:
    """A text as it was written, as an array: BLEU compares words, whatever the tokenizer makes of them."""
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)


def bleu_marks(texts: Sequence[str], references: Tensor) -> dict[str, Tensor]:
    """Of each text: matches and numbers of its 1- to 4-grams, its length, and that of its reference (rows, 10)."""
    import torch

    scorer = need("sacrebleu", extra="bleu").BLEU(effective_order=True)
    counts = []
    for text, row in zip(texts, references.cpu().numpy(), strict=True):
        score = scorer.sentence_score(text, [bytes(row[row >= 0].astype(np.uint8)).decode()])
        counts.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return {"bleu": torch.tensor(counts, dtype=torch.float64)}


def bleu(sums: Sums) -> NDArray[np.float64]:
    """From the counts (10,) or (resamples, 10), added up over all sentences."""
    scorer = need("sacrebleu", extra="bleu").BLEU

    def score(counts: NDArray[np.float64]) -> float:
        whole = [int(count) for count in counts]
        return scorer.compute_bleu(whole[:4], whole[4:8], whole[8], whole[9], smooth_method="exp").score

    return np.apply_along_axis(score, -1, sums["bleu"])
