"""llama2.c's `.bin` (Karpathy 2023): a Llama in one run of float32, after seven numbers.

dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (below 0: a head of its own), seq_len; then the embedding,
each kind of matrix for all layers, the last norm, two tables of turns, and that head. Turned by neighbours, as Meta's.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyformer.checkpoints.foreign import Foreign, Lazy
from anyformer.checkpoints.pairs import to_halves
from anyformer.core.errors import InputError
from anyformer.runs.header import opened

FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
LARGEST = 2**24  # of a size, as in the specs
NEWER = 0x616B3432  # "ak42": begins the later forms, which keep other numbers and may be quantised


def read_llama2c(path: Path) -> Foreign:
    """The model of a file in the first form, which `run.c` reads."""
    with opened(path, "a .bin of llama2.c") as file:
        size = file.seek(0, 2)
        file.seek(0)
        header = file.read(28)
        if len(header) < 28:
            raise InputError(f"{path}: {size} bytes long, but a .bin of llama2.c has at least 28: it is cut short")
        numbers = struct.unpack("<7i", header)
        if numbers[0] == NEWER:
            raise InputError(f"{path}: is a .bin of llama2.c's newer form; export it as version 0")
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    c, hidden, layers, heads, kv_heads, words, context = (abs(number) for number in numbers)
    given: dict[str, int] = dict(zip(FIELDS, numbers, strict=True))
    odd = [
        name for name, number in given.items() if not 0 < abs(number) <= LARGEST or (number < 0 and name != FIELDS[5])
    ]
    if odd or layers > 10_000 or c % (2 * heads) or heads % kv_heads:
        raise InputError(
            f"{path}: no .bin of llama2.c: {', '.join(f'{name} {number}' for name, number in given.items())}"
        )
    d = c // heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words, c),
        "input_layernorm.weight": (layers, c),
        "self_attn.q_proj.weight": (layers, c, c),
        "self_attn.k_proj.weight": (layers, kv_heads * d, c),
        "self_attn.v_proj.weight": (layers, kv_heads * d, c),
        "self_attn.o_proj.weight": (layers, c, c),
        "post_attention_layernorm.weight": (layers, c),
        "mlp.gate_proj.weight": (layers, hidden, c),
        "mlp.down_proj.weight": (layers, c, hidden),
        "mlp.up_proj.weight": (layers, hidden, c),
        "model.norm.weight": (c,),
        "turns": (2, context, d // 2),  # run.c computes them anew, and so does the model
        **({"lm_head.weight": (words, c)} if numbers[5] < 0 else {}),
    }
    if (expected := 28 + 4 * sum(map(prod, shapes.values()))) != size:
        what = "cut short" if size < expected else "too long"
        raise InputError(f"{path}: {what}: {expected} bytes expected, {size} are there")
    return Foreign(_config(given), Lazy(_makers(pages, shapes, heads, kv_heads)))


def _config(given: dict[str, int]) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": given["dim"],
        "intermediate_size": given["hidden_dim"],
        "num_hidden_layers": given["n_layers"],
        "num_attention_heads": given["n_heads"],
        "num_key_value_heads": given["n_kv_heads"],
        "vocab_size": abs(given["vocab_size"]),
        "max_position_embeddings": given["seq_len"],
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": given["vocab_size"] > 0,
    }


def _makers(
    pages: mmap.mmap, shapes: dict[str, tuple[int, ...]], heads: int, kv_heads: int
) -> dict[str, Callable[[], Tensor]]:
    """How each tensor is made: a run of the file, in which the layers follow each other."""
    turned = {"self_attn.q_proj.weight": heads, "self_attn.k_proj.weight": kv_heads}
    makers: dict[str, Callable[[], Tensor]] = {}
    at = 28
    for name, shape in shapes.items():
        whole = name.startswith(("model.", "lm_head."))
        if name != "turns":
            for layer in range(1 if whole else shape[0]):
                one = shape if whole else shape[1:]
                ours = name if whole else f"model.layers.{layer}.{name}"
                makers[ours] = partial(_floats, pages, at + 4 * layer * prod(one), one, turned.get(name))
        at += 4 * prod(shape)
    return makers


def _floats(pages: mmap.mmap, at: int, shape: tuple[int, ...], heads: int | None) -> Tensor:
    tensor = torch.frombuffer(pages, dtype=torch.float32, count=prod(shape), offset=at).view(shape)
    return tensor if heads is None else to_halves(tensor, heads)
