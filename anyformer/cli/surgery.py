"""`--surgery report`: what becomes of a model's weights under `--set`, said before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from typer import Option

from anyformer.cli.frame import Frame

Surgery = Literal["report"]
OPTION = Option(help="report: only say which weights --set keeps, which are new and which are dropped.")


def report(frame: Frame, run: Path, changes: Mapping[str, Any], best: bool) -> None:
    """Prints it; nothing is computed."""
    from anyformer.models.load import operated
    from anyformer.models.surgery import Surgery

    _, surgery, _ = operated(run, changes, best=best)
    if frame.json:
        frame.put_json({"kept": surgery.kept, "new": surgery.new, "dropped": surgery.dropped})
        return
    whole = surgery == Surgery(surgery.kept, (), ())
    for line in (f"kept: {'all ' if whole else ''}{len(surgery.kept)} weights", *surgery.lines()):
        frame.put(line)
