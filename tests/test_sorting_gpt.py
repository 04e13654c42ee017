"""A real minGPT that sorts six letters of three: our numbers, and those of minGPT's equations written out in NumPy."""

import base64
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import anyformer as af

pytestmark = pytest.mark.needs_shared
INPUTS = torch.tensor(list(itertools.product(range(3), repeat=6)))
RIGHT = 729  # of 3^6, by the file's own model


def norm(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logits(file: dict, ids: np.ndarray) -> np.ndarray:
    """minGPT's forward pass, in float64."""
    w = {
        name: np.frombuffer(base64.b64decode(entry["data"]), np.float32).reshape(entry["shape"]).astype(np.float64)
        for name, entry in file.items()
        if name != "config"
    }
    B, T = ids.shape
    H = file["config"]["n_head"]
    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][:T]
    mask = np.triu(np.full((T, T), -np.inf), 1)
    for i in range(file["config"]["n_layer"]):
        p = {name.removeprefix(f"transformer.h.{i}."): value for name, value in w.items()}
        y = norm(x, p["ln_1.weight"], p["ln_1.bias"]) @ p["attn.c_attn.weight"].T + p["attn.c_attn.bias"]
        q, k, v = (part.reshape(B, T, H, -1).transpose(0, 2, 1, 3) for part in np.split(y, 3, -1))
        y = softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]) + mask) @ v
        x = x + y.transpose(0, 2, 1, 3).reshape(B, T, -1) @ p["attn.c_proj.weight"].T + p["attn.c_proj.bias"]
        y = norm(x, p["ln_2.weight"], p["ln_2.bias"]) @ p["mlp.c_fc.weight"].T + p["mlp.c_fc.bias"]
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + y @ p["mlp.c_proj.weight"].T + p["mlp.c_proj.bias"]
    return norm(x, w["transformer.ln_f.weight"], w["transformer.ln_f.bias"]) @ w["lm_head.weight"].T


@torch.no_grad()
def test_its_numbers_are_mingpts(shared: Path) -> None:
    path = shared / "gpt-nano-sort.json"
    ids = torch.cat([INPUTS, INPUTS[:, :5]], 1)[::7]
    ours = af.load(path, dtype=torch.float64)(ids)
    torch.testing.assert_close(ours, torch.from_numpy(logits(json.loads(path.read_text()), ids.numpy())))


@torch.no_grad()
def test_it_sorts_every_input(shared: Path) -> None:
    """Six tokens after every six, on a state, each the likeliest."""
    model = af.load(shared / "gpt-nano-sort.json")
    state = model.init_state(len(INPUTS), capacity=12)
    out, new = INPUTS, []
    for _ in range(6):
        answer, state = model(out, state)
        out = answer[:, -1:].argmax(-1)
        new.append(out)
    assert int((torch.cat(new, 1) == INPUTS.sort(1).values).all(1).sum()) == RIGHT
