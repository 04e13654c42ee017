"""`anyformer doctor`: what this machine has, measured rather than assumed, and what is slow and why."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Context, Option

from anyformer import __version__
from anyformer.cli.frame import Frame
from anyformer.cli.list import TABLES
from anyformer.core.tables import clashes, table

if TYPE_CHECKING:
    import torch

EXAMPLES = ("anyformer doctor", "anyformer doctor --no-compile --json")

BASE = ("torch", "numpy", "pydantic", "typer", "rich", "ruamel.yaml", "tokenizers", "safetensors", "jinja2")
EXTRAS = {
    "bleu": ("sacrebleu",),
    "datasets": ("datasets",),
    "tensorboard": ("tensorboard",),
    "test": ("pytest", "hypothesis", "xdist", "jsonschema", "ruff", "pyright"),
}
SIZE = 384  # of the square matrices that are multiplied: large enough that arithmetic, not calling, is measured


def doctor(
    ctx: Context,
    compile: Annotated[bool, Option(help="Try torch.compile, which can take half a minute.")] = True,
) -> None:
    """Say what is installed and what this machine can do; every ability is tried, not looked up."""
    frame = Frame.of(ctx)
    device = frame.torch_device()
    found = {
        "anyformer": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{package: version(package) for package in BASE},
        "device": str(device),
        "threads": threads(),
        "bfloat16": bfloat16(device),
        "compile": compiles(device) if compile else "not tried",
        **{f"extra {extra}": extra_state(extra) for extra in EXTRAS},
        "parts": parts(),
    }
    if frame.json:
        frame.put_json(found)
    else:
        frame.put_table(list(found.items()))


def version(package: str) -> str:
    """The installed version, or how to get one."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"missing; pip install {package}"


def extra_state(extra: str) -> str:
    """Whether everything an extra brings can be imported."""
    missing = [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]
    return f"missing {', '.join(missing)}; pip install 'anyformer[{extra}]'" if missing else "installed"


def threads() -> str:
    """Threads that torch uses, against the processors that this process may use."""
    import torch

    used = torch.get_num_threads()
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    note = "; more threads than processors is slow, set --threads" if used > allowed else ""
    return f"{used} of {allowed} processors{note}"


def bfloat16(device: "torch.device") -> str:
    """How fast bfloat16 multiplies beside float32: below 1 it is emulated, and training is better left in float32."""
    import torch

    wide = torch.ones(SIZE, SIZE, device=device)
    narrow = wide.bfloat16()
    ratio = best_seconds(lambda: wide @ wide, device) / best_seconds(lambda: narrow @ narrow, device)
    advice = "use it" if ratio > 1.2 else "no gain here: keep training.precision float32"
    return f"{ratio:.2g} times the speed of float32; {advice}"


def best_seconds(run: Callable[[], object], device: "torch.device", times: int = 5) -> float:
    """The quickest of several runs, the first thrown away; an accelerator is waited for."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - start

    once()
    return min(once() for _ in range(times))


def compiles(device: "torch.device") -> str:
    """Whether torch.compile works: it needs a C++ compiler on a processor, Triton on most accelerators."""
    import torch

    start = time.perf_counter()
    try:
        torch.compile(lambda x: (x * 2 + 1).relu().sum(), dynamic=False)(torch.ones(64, device=device))
    except Exception as error:  # whatever it is, the answer is no, and its first line says why
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"no, models run uncompiled: {reason[:160]}"
    return f"works; a small function took {time.perf_counter() - start:.0f} s"


def parts() -> str:
    """How many parts are registered, and which names are claimed twice."""
    packages = [f"anyformer.{name}" for name in TABLES]
    counted = f"{sum(len(table(package)) for package in packages)} in {len(packages)} tables"
    twice = [
        f"{package}: {kind!r} is claimed by {' and '.join(claims)}; uninstall one"
        for package in packages
        for kind, claims in clashes(package).items()
    ]
    return "; ".join([counted, *twice])
