"""Loading a published folder: seconds and memory until the model has said its first logits.

The first forward pass counts, since weights that are mapped are only read when they are used. Every repetition has an
interpreter of its own, in which the library and the model's class are imported before the clock starts; the files are
in the page cache, for all alike. Memory is the most that the process ever held: the interpreter, the library, and the
pages of the file that were read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, ClassVar

from anyformer.benchmarks.base import Benchmark, Case, Sample
from anyformer.benchmarks.children import fresh, memory
from anyformer.benchmarks.limits import reading_s
from anyformer.core.errors import ResourceError

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 8
# GPT-2 small in float32; TinyLlama's 1.1 B in bfloat16, as most of that size are published
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "load-124m": {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
    },
    "load-1b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
}
DTYPES = {"load-124m": "float32", "load-1b": "bfloat16"}
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.05}


class Loading(Benchmark):
    """Loading a published folder: seconds and memory until the first logits of 8 tokens."""

    cases = tuple(CONFIGS)
    rivals: ClassVar = {"transformers": "transformers"}

    @contextmanager
    def opened(self, case: str, threads: int) -> Iterator[Case]:
        with tempfile.TemporaryDirectory(prefix="anyformer-") as place:
            folder = Path(place) / case
            size = fresh(f"{__name__}:write", folder, json.dumps(CONFIGS[case]), DTYPES[case])
            yield Case(
                ours=lambda: Sample(**fresh(f"{__name__}:ours", folder, threads)),
                rivals={"transformers": lambda: Sample(**fresh(f"{__name__}:transformers", folder, threads))},
                tolerance=TOLERANCES[DTYPES[case]],
                limit_s=reading_s(size, threads),
                facts={"weights_bytes": size},
            )


def write(folder: str, config: str, dtype: str) -> int:
    """Writes a folder with random weights; the bytes of these. config: as JSON."""
    import torch

    from anyformer.models.export import export_hf
    from anyformer.models.published import declared

    tree = json.loads(config)
    model = declared(tree, folder).build(dtype=getattr(torch, dtype))
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    free = shutil.disk_usage(Path(folder).parent).free
    if free < 1.1 * size:
        raise ResourceError(f"{folder}: {size} bytes are to be written, {free} are free; set TMPDIR to another place")
    export_hf(model, Path(folder), tree["model_type"])
    return size


def ours(folder: str, threads: str) -> dict[str, Any]:
    """One loading by this library."""
    config, start = _config(folder), perf_counter()
    import torch

    from anyformer.core.tables import row
    from anyformer.models.load import load

    row("anyformer.models", config["model_type"])
    imported = perf_counter() - start
    torch.set_num_threads(int(threads))
    return _timed(imported, lambda: load(folder))


def transformers(folder: str, threads: str) -> dict[str, Any]:
    """One loading by transformers."""
    config, start = _config(folder), perf_counter()
    import torch
    import transformers

    model_class = getattr(transformers, config["architectures"][0])
    imported = perf_counter() - start
    torch.set_num_threads(int(threads))
    transformers.utils.logging.disable_progress_bar()

    def loaded() -> Callable[[Tensor], Tensor]:
        model = model_class.from_pretrained(folder, dtype="auto").eval()
        return lambda ids: model(ids).logits

    return _timed(imported, loaded)


def _config(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "config.json").read_text())


def _timed(import_s: float, loaded: Callable[[], Callable[[Tensor], Tensor]]) -> dict[str, Any]:
    """What a Sample is made of. loaded: gives a model, ids (B, T) -> logits (B, T, V)."""
    import torch

    ids = torch.arange(1, TOKENS + 1)[None]
    before, _ = memory()
    start, start_cpu = perf_counter(), process_time()
    model = loaded()
    with torch.inference_mode():
        logits = model(ids)
    seconds, cpu = perf_counter() - start, process_time() - start_cpu
    _, peak = memory()
    figures = {"cpu_s": cpu, "import_s": import_s, "import_bytes": before, "bytes": peak}
    return {"seconds": seconds, "answer": logits[0, -1].float().tolist(), "figures": figures}
