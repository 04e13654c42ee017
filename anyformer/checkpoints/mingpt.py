"""minGPT's names (Karpathy 2020): GPT-2 with linear maps as torch has them, a head of its own and a mask in a buffer.

The file is JSON: `config`, and for each tensor its shape, its dtype and its bytes in base64.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyformer.checkpoints.config import FRACTION, SIZE, Reading
from anyformer.checkpoints.files import read_json
from anyformer.checkpoints.foreign import Foreign
from anyformer.core.errors import InputError

KEYS = {
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
    "vocab_size": "vocab_size",
    "block_size": "n_positions",
}
DROPOUTS = ("embd_pdrop", "resid_pdrop", "attn_pdrop")
TURNED = re.compile(r".*\.(c_attn|c_proj|c_fc)\.weight")  # GPT-2's files have those by columns
MASK = re.compile(r"transformer\.h\.\d+\.attn\.bias")


def read_mingpt(path: Path) -> Foreign:
    """The model of a file."""
    tree = read_json(path)
    config = tree.pop("config", None)
    return from_mingpt(
        config, {name: _tensor(entry, f"{path}: {name[:80]!r}") for name, entry in tree.items()}, str(path)
    )


def from_mingpt(config: object, tensors: Mapping[str, Tensor], where: str) -> Foreign:
    """A model of minGPT's own `state_dict`, as GPT-2's files have it."""
    c = Reading(config, f"{where}: config")
    made: dict[str, Any] = {theirs: c.take(ours, SIZE, "") for ours, theirs in KEYS.items()}
    made |= {key: c.take(key, FRACTION, "", 0.1) for key in DROPOUTS}
    c.done()
    made |= {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
    }
    kept = {name: tensor for name, tensor in tensors.items() if not MASK.fullmatch(name)}
    return Foreign(made, {name: tensor.mT if TURNED.fullmatch(name) else tensor for name, tensor in kept.items()})


def _tensor(entry: object, what: str) -> Tensor:
    match entry:
        case {"shape": list(shape), "dtype": "torch.float32", "data": str(data), **rest} if not rest:
            pass
        case _:
            raise InputError(f"{what} should have a shape, the dtype torch.float32 and data")
    if any(type(size) is not int or not 0 < size < 2**40 for size in shape):
        raise InputError(f"{what} has the shape {shape!r:.60}, which no tensor has")
    try:
        numbers = bytearray(base64.b64decode(data, validate=True))
    except ValueError:
        raise InputError(f"{what}: its data are no base64: the file is damaged") from None
    if len(numbers) != 4 * prod(shape):
        raise InputError(f"{what}: {len(numbers)} bytes of data for the shape {shape!r:.60}: the file is damaged")
    return torch.frombuffer(numbers, dtype=torch.float32).view(shape)
