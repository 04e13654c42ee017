"""A function in an interpreter of its own, so that what it imports and what it holds is counted from the start."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from anyformer.core.errors import ResourceError


def fresh(target: str, *arguments: object) -> Any:
    """What a function says, as plain data. target: "module:function"; it is given the arguments as text."""
    words = [sys.executable, "-m", __name__, target, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode < 0:  # by a signal; where memory ends, Linux sends one
        raise ResourceError(f"{target} was killed by signal {-done.returncode}; there may not be enough memory")
    if done.returncode:
        raise RuntimeError(f"{target} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def memory() -> tuple[int, int]:
    """Bytes that this process holds, and the most that it ever held; pages of mapped files count once they are read."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
        return peak, peak
    # not ru_maxrss, which begins with what the parent held
    found = dict(line.split(":", 1) for line in status.read_text().splitlines())
    held, peak = (int(found[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return held, peak


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(*sys.argv[2:])))
