"""`anyformer embed`: a vector for every line of a file, as JSON lines or as one array."""

import tempfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Context, Option

from anyformer.cli.frame import Frame
from anyformer.cli.lines import FILE, Lines
from anyformer.cli.opening import Allow, Best, Dtype, Set, Surgery, fetched, how, report
from anyformer.core.errors import ConfigError, InputError, NumericalStop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from anyformer.runs.files import Chunk

    Vectors = Iterable[tuple[str, Tensor | InputError]]  # where a line is, and its vector

EXAMPLES = (
    "anyformer embed runs/sentences texts.txt --out vectors.npy",
    "anyformer embed all-MiniLM-L6-v2 texts.txt > vectors.jsonl",
)
SUFFIXES = (".npy", ".safetensors")


def embed(
    ctx: Context,
    run: Annotated[Path, Argument(help="A run folder, or a published checkpoint.", metavar="RUN")],
    file: Annotated[str, Argument(help=FILE, metavar="FILE")],
    pool: Annotated[
        Literal["first", "mean", "last", "max"] | None,
        Option(help="How a text's tokens become one vector; else as a head `sentence` says, or the mean."),
    ] = None,
    normalize: Annotated[
        bool | None, Option("--normalize/--no-normalize", help="To length 1; else as a head `sentence` says, or not.")
    ] = None,
    out: Annotated[
        Path | None, Option(help="A .npy or .safetensors file for all vectors, a row each; else JSON lines.")
    ] = None,
    best: Best = False,
    set: Set = None,
    allow: Allow = None,
    dtype: Dtype = None,
    surgery: Surgery = None,
) -> None:
    """Say the vector of every line, in order: what its meaning is compared by.

    A line that cannot be read is answered by {"error": …} in its place, in an array by a row of NaN, and the rest is
    done; the exit code is then 3.
    """
    frame = Frame.of(ctx)
    if out is not None and out.suffix not in SUFFIXES:
        raise ConfigError(f"--out {out}: should end in {' or '.join(SUFFIXES)}")
    opening = how(frame, best, set, allow, dtype)
    run = fetched(frame, run)
    if surgery is not None:
        report(frame, run, opening)
        return
    lines = Lines.of(file)
    from anyformer.models.load import load
    from anyformer.training.embed import Embedder

    embedder = Embedder.of(load(run, **opening), pool, normalize)
    vectors = finite(lines.told(frame, embedder.vectors(lines.rows())))
    if out is None:
        for _, vector in vectors:
            bad = isinstance(vector, InputError)
            frame.put_json({"error": str(vector)} if bad else {"vector": vector.tolist()})
    else:
        count, width = write(out, vectors)
        frame.put_json({"path": str(out), "rows": count, "width": width}) if frame.json else frame.put(str(out))
    lines.end(frame)


def finite(vectors: "Vectors") -> "Iterator[tuple[str, Tensor | InputError]]":
    """The same, unless one is no number."""
    for where, vector in vectors:
        if not isinstance(vector, InputError) and not vector.isfinite().all():
            raise NumericalStop(f"{where}: the vector is no number: the run's weights are no use")
        yield where, vector


def write(path: Path, vectors: "Vectors") -> tuple[int, int]:
    """One file with a row for each line, NaN where it could not be read; (rows, width). Memory is bounded."""
    import numpy as np
    import torch

    from anyformer.runs.files import DISK, atomic_write, explained, make_folder
    from anyformer.runs.weights import tensor_chunks

    make_folder(DISK, path.parent)
    with explained(path), tempfile.TemporaryFile(dir=path.parent) as rows:
        like, count, blank = None, 0, 0
        for _, vector in vectors:
            count += 1
            if isinstance(vector, InputError):
                blank += 1  # written when it is known how wide a row is
                continue
            like = vector.numpy()
            rows.writelines(repeat(np.full_like(like, np.nan).tobytes(), blank))
            rows.write(like.tobytes())
            blank = 0
        if like is None:
            raise InputError("no line could be read: nothing is written")
        rows.writelines(repeat(np.full_like(like, np.nan).tobytes(), blank))
        rows.flush()
        array = np.memmap(rows, like.dtype, "r+", shape=(count, len(like)))
        if path.suffix == ".npy":
            atomic_write(DISK, path, npy_chunks(array))
        else:
            atomic_write(DISK, path, tensor_chunks({"vectors": torch.from_numpy(array)}, {}))
    return array.shape


def npy_chunks(array: "NDArray[np.floating]") -> "Iterator[Chunk]":
    """The bytes of an array as numpy saves it."""
    import numpy as np

    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    yield head.getvalue()
    yield array.reshape(-1).view(np.uint8).data
