"""`anyformer convert`: checkpoints in and out."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Option

from anyformer.cli.frame import Frame
from anyformer.cli.opening import Allow, Best, Dtype, Set, fetched, how
from anyformer.core.errors import ConfigError

EXAMPLES = (
    "anyformer convert runs/demo exported --to hf",
    "anyformer convert published runs/mine --to anyformer",
)


def convert(
    ctx: Context,
    source: Annotated[
        Path, Argument(help="A run folder, a published folder, a GGUF file, a llama2.c .bin.", metavar="SRC")
    ],
    target: Annotated[Path, Argument(help="A folder, or of gguf a file, that is not there yet.", metavar="DST")],
    to: Annotated[Literal["hf", "anyformer", "gguf", "onnx"], Option(help="Whose form DST has.")] = "hf",
    type: Annotated[str | None, Option(help="Of hf, the model_type; else the first that can say all.")] = None,
    numbers: Annotated[Literal["F32", "F16", "Q8_0"] | None, Option(help="Of gguf, how matrices are written.")] = None,
    best: Best = False,
    set: Set = None,
    allow: Allow = None,
    dtype: Dtype = None,
) -> None:
    """Write a trained model as other programs read it, or what others trained as a run.

    Pickles (pytorch_model.bin) are read here and nowhere else: weights only, in a process of their own. A folder of
    onnx has the graphs, one file of their weights, and anyformer.json, which tells what goes in and comes out.
    """
    frame = Frame.of(ctx)
    for option, value, form in (("--type", type, "hf"), ("--numbers", numbers, "gguf")):
        if value is not None and to != form:
            raise ConfigError(f"{option} is of --to {form}, not of --to {to}")
    opening = how(frame, best, set, allow, dtype)
    from anyformer.models.export import export_gguf, export_hf
    from anyformer.models.load import operated

    with unpickled(fetched(frame, source, pickles=True)) as readable:
        model, surgery, notes = operated(readable, **opening)
        for note in (*notes, *surgery.lines()):
            frame.say(note)
        if to == "anyformer":
            from anyformer.training.finished import write_run

            write_run(model, target)
        elif to == "onnx":
            from anyformer.models.onnx_export import export_onnx

            for note in export_onnx(model, target):
                frame.say(note)
        else:
            name = export_hf(model, target, type) if to == "hf" else export_gguf(model, target, numbers or "F32")
            frame.say(f"written as {name}")
    frame.put_json({"path": str(target)}) if frame.json else frame.put(str(target))


@contextmanager
def unpickled(source: Path) -> Iterator[Path]:
    """The source, or, where its weights are pickles, a folder for a while that has them as safetensors."""
    from anyformer.checkpoints.files import INDEX, SINGLE
    from anyformer.checkpoints.pickles import BIN, BIN_INDEX, to_safetensors
    from anyformer.models.published import CONFIG

    has = {name for name in (SINGLE, INDEX, BIN, BIN_INDEX) if (source / name).is_file()}
    if not has or has & {SINGLE, INDEX}:
        yield source
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / source.name
        modules = [file.parent for file in source.glob(f"[0-9]_*/{CONFIG}")]  # of sentence-transformers
        for part in (source, *modules):
            made = folder / part.relative_to(source)
            made.mkdir()
            for file in part.iterdir():
                if file.is_file() and not file.name.startswith("pytorch_model"):
                    shutil.copyfile(file, made / file.name)
            if any((part / name).is_file() for name in (BIN, BIN_INDEX)):
                to_safetensors(part, made)
        yield folder
