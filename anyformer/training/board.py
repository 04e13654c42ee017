"""The curves of a run for TensorBoard, beside `metrics.jsonl`, which stays the truth."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from anyformer.core.extras import need
from anyformer.training.loop import Report

FOLDER = "tensorboard"


def board(run: Path, then: Callable[[Report], None]) -> Callable[[Report], None]:
    """What writes every report of a run into its folder `tensorboard`, made with the first one, and hands it on."""
    need("tensorboard", extra="tensorboard")

    @cache
    def writer() -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(run / FOLDER))

    def write(report: Report) -> None:
        for name, value in report.values.items():
            writer().add_scalar(f"train/{name}", value, report.step)
        for name, value in (report.evaluation.metrics if report.evaluation else {}).items():
            writer().add_scalar(f"held_out/{name}", value, report.step)
        if report.evaluation or report.saved:
            writer().flush()
        then(report)

    return write
