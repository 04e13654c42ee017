"""Weights published in few bits: each number as published, one line where that cannot be, and models that run."""

import json
import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import anyformer as af
from anyformer.checkpoints.quantised import MXFP4, BlockFP8

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def bytes_of(*shape: int, low: int = 0, high: int = 256, seed: int = 3) -> Tensor:
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def eights(*shape: int, seed: int = 3) -> Tensor:
    """Numbers of 8 bits, all that are numbers."""
    drawn = bytes_of(*shape, seed=seed)
    return torch.where(drawn & 127 == 127, 0, drawn).view(torch.float8_e4m3fn)


def scales(*shape: int) -> Tensor:
    """None of them a power of two."""
    return 0.01 + torch.rand(*shape, generator=torch.Generator().manual_seed(5))


def same(ours: Tensor, theirs: Tensor) -> None:
    """To the last bit: -0 is not 0."""
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[ours.itemsize]
    assert torch.equal(ours.contiguous().view(integers), theirs.contiguous().view(integers))


def e2m1(code: int) -> float:
    """A sign, two bits of exponent, one of mantissa."""
    exponent, half = code >> 1 & 3, code & 1
    size = (1 + half / 2) * 2.0 ** (exponent - 1) if exponent else half / 2
    return -size if code & 8 else size


def e4m3(code: int) -> float:
    """A sign, four bits of exponent, three of mantissa."""
    exponent, rest = code >> 3 & 15, code & 7
    size = (1 + rest / 8) * 2.0 ** (exponent - 7) if exponent else rest / 8 * 2.0**-6
    return -size if code & 128 else size


def plain_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Number by number, in float64."""
    experts, rows, groups, _ = blocks.shape
    made = torch.empty(experts, 32 * groups, rows, dtype=torch.float64)
    for e in range(experts):
        for r in range(rows):
            for j in range(32 * groups):
                byte = int(blocks[e, r, j // 32, j % 32 // 2])
                code = byte >> 4 if j % 2 else byte & 15
                made[e, j, r] = e2m1(code) * 2.0 ** (int(scales[e, r, j // 32]) - 127)
    return made


def plain_fp8(q: Tensor, scales: Tensor, block: tuple[int, int]) -> Tensor:
    """Number by number; float64 holds the products whole, so that rounding to float32 is rounding once."""
    made = torch.empty(q.shape, dtype=torch.float64)
    codes = q.view(torch.uint8)
    for i in range(q.shape[0]):
        for j in range(q.shape[1]):
            made[i, j] = e4m3(int(codes[i, j])) * float(scales[i // block[0], j // block[1]])
    return made.float()


# Numbers


@dtypes
def test_mxfp4_number_by_number(dtype: torch.dtype) -> None:
    """With every byte and, but for those whose numbers only some dtypes have, every scale."""
    blocks, powers = bytes_of(2, 3, 4, 16), bytes_of(2, 3, 4, low=115, high=135)
    blocks.view(-1)[:256] = torch.arange(256, dtype=torch.uint8)
    if dtype != torch.float16:
        powers = bytes_of(2, 3, 4, high=250)
        powers.view(-1)[:2] = torch.tensor([0, 250], dtype=torch.uint8)
    same(MXFP4().plain(blocks, powers, dtype), plain_mxfp4(blocks, powers).to(dtype))


@dtypes
def test_mxfp4_as_transformers_has_it(dtype: torch.dtype) -> None:
    pytest.importorskip("transformers")
    theirs = import_module("transformers.integrations.mxfp4").convert_moe_packed_tensors
    blocks, powers = bytes_of(3, 5, 2, 16), bytes_of(3, 5, 2, high=255)
    powers.view(-1)[:2] = torch.tensor([0, 254], dtype=torch.uint8)
    same(MXFP4().plain(blocks, powers, dtype), theirs(blocks, powers, dtype=dtype))


@dtypes
@pytest.mark.parametrize("shape", [(16, 32), (13, 35)], ids=str)
def test_fp8_number_by_number(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Blocks at the edges are cut, as those of DeepSeek-V3's 576 rows are."""
    block = (4, 16)
    q, s = eights(*shape), scales(*(-(-size // step) for size, step in zip(shape, block, strict=True)))
    same(BlockFP8(block).plain(q, s, dtype), plain_fp8(q, s, block).to(dtype))


@dtypes
def test_fp8_as_transformers_has_it(dtype: torch.dtype) -> None:
    pytest.importorskip("transformers")
    theirs = import_module("transformers.integrations.finegrained_fp8").Fp8Dequantize(None)
    q = eights(256, 384)
    for s in (scales(2, 3), scales(2, 3).bfloat16()):  # Qwen 3's are bfloat16
        same(BlockFP8((128, 128)).plain(q, s, dtype), theirs._dequantize_one(q, s, output_dtype=dtype))


def test_numbers_by_hand() -> None:
    blocks = torch.zeros(1, 1, 1, 16, dtype=torch.uint8)
    blocks[0, 0, 0, :3] = torch.tensor([0x21, 0xF7, 0x89])
    found = MXFP4().plain(blocks, torch.full((1, 1, 1), 128, dtype=torch.uint8), torch.bfloat16)
    assert found[0, :7, 0].tolist() == [1.0, 2.0, 12.0, -12.0, -1.0, -0.0, 0.0]
    assert math.copysign(1, found[0, 5, 0].item()) == -1
    q = torch.tensor([[0x38, 0x01, 0xFE], [0x40, 0xB8, 0x7E]], dtype=torch.uint8).view(torch.float8_e4m3fn)
    found = BlockFP8((1, 2)).plain(q, torch.tensor([[0.5, 2.0], [0.25, 1.0]]), torch.float32)
    assert found.tolist() == [[0.5, 2.0**-10, -896.0], [0.5, -0.25, 448.0]]


# Folders

ROPE = {"rope_type": "yarn", "rope_theta": 123.0, "factor": 3.0, "original_max_position_embeddings": 20}
OSS = {
    "model_type": "gpt_oss",
    "vocab_size": 61,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "intermediate_size": 32,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "sliding_window": 4,
    "rope_parameters": ROPE,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "intermediate_size": 30,
    "moe_intermediate_size": 6,
    "n_shared_experts": 2,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "n_group": 3,
    "topk_group": 2,
    "kv_lora_rank": 9,
    "q_lora_rank": 11,
    "qk_rope_head_dim": 6,
    "qk_nope_head_dim": 5,
    "v_head_dim": 7,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 123.0},
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [8, 16],
    },
}
FILE = "model.safetensors"
Tensors = dict[str, Tensor]


def drawn(config: dict[str, Any]) -> Tensors:
    """Plain tensors as files of that type have them."""
    from anyformer.models.published import declared, published

    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    model = declared(plain, "").build(seed=1)
    for at, weight in enumerate(model.parameters()):
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(at))
    return {name: tensor.bfloat16() for name, tensor in published(model, config["model_type"])[1].items()}


def oss() -> tuple[Tensors, Tensors]:
    """Tensors of a file, quantised and plain."""
    tensors = drawn(OSS)
    quantised = dict(tensors)
    for at, name in enumerate(name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))):
        experts, rows, columns = tensors[name].shape
        blocks = bytes_of(experts, columns, rows // 32, 16, seed=at)
        powers = bytes_of(experts, columns, rows // 32, low=122, high=127, seed=at)
        del quantised[name]
        quantised |= {f"{name}_blocks": blocks, f"{name}_scales": powers}
        tensors[name] = plain_mxfp4(blocks, powers).bfloat16()
    return quantised, tensors


def deepseek() -> tuple[Tensors, Tensors]:
    """The same of DeepSeek-V3, whose files have a layer more than is built."""
    tensors = drawn(DEEPSEEK)
    quantised = dict(tensors)
    mapped = [name for name in tensors if ".layers." in name and name.endswith("proj.weight")]
    for at, name in enumerate([*mapped, "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"]):
        q = eights(*tensors[name].shape, seed=at)
        s = scales(-(-len(q) // 8), -(-q.shape[1] // 16)) * 0.02
        quantised |= {name: q, f"{name}_scale_inv": s}
        tensors[name] = plain_fp8(q, s, (8, 16)).bfloat16()
    more = {
        name.replace("layers.1", "layers.2"): part.clone() for name, part in quantised.items() if "layers.1" in name
    }
    return {**quantised, **more, "model.layers.2.eh_proj.weight": torch.ones(24, 48).bfloat16()}, tensors


def written(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / FILE, {"format": "pt"})
    return folder


MADE: dict[str, tuple[dict[str, Any], Callable[[], tuple[Tensors, Tensors]]]] = {
    "gpt_oss": (OSS, oss),
    "deepseek_v3": (DEEPSEEK, deepseek),
}
kinds = pytest.mark.parametrize("kind", MADE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """By kind, a folder of a quantised model, and one of the same with plain weights."""
    found = {}
    for kind, (config, make) in MADE.items():
        at = tmp_path_factory.mktemp(kind)
        quantised, tensors = make()
        plain = {key: value for key, value in config.items() if key != "quantization_config"}
        found[kind] = written(at / "quantised", config, quantised), written(at / "plain", plain, tensors)
    return found


IDS = torch.arange(5, 27).view(2, 11)


@kinds
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float32])
@torch.no_grad()
def test_a_quantised_folder_is_its_plain_one(
    kind: str, dtype: torch.dtype | None, folders: dict[str, tuple[Path, Path]]
) -> None:
    quantised, plain = (af.load(folder, dtype=dtype) for folder in folders[kind])
    assert next(quantised.parameters()).dtype == (dtype or torch.bfloat16)
    out = quantised(IDS)
    assert out.isfinite().all() and out.std() > 0.1
    if dtype == torch.float32 and kind == "deepseek_v3":  # with digits that bfloat16 does not have
        assert not torch.equal(out, plain(IDS))
        torch.testing.assert_close(out, plain(IDS), rtol=0.0, atol=0.2)
        return
    assert torch.equal(out, plain(IDS))
