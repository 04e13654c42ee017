"""Weights published in few bits: each number as published, one line where that cannot be, and models that run."""

import json
import math
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.published import quiet
from safetensors.torch import load_file, save_file
from torch import Tensor

import anyformer as af
from anyformer.checkpoints.quantised import MXFP4, BlockFP8
from anyformer.cli.main import main
from anyformer.core.errors import InputError
from anyformer.models.published import declared, open_published, own_form, published

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
    "intermediate_size": 64,
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
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    model = declared(plain, "").build(seed=1)
    for at, weight in enumerate(model.parameters()):
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(at))
    return {name: tensor.bfloat16() for name, tensor in published(model, config["model_type"])[1].items()}


def oss() -> tuple[Tensors, Tensors]:
    """Tensors of a file, quantised and plain, with all digits."""
    tensors = drawn(OSS)
    quantised = dict(tensors)
    for at, name in enumerate(name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))):
        experts, rows, columns = tensors[name].shape
        blocks = bytes_of(experts, columns, rows // 32, 16, seed=at)
        powers = bytes_of(experts, columns, rows // 32, low=122, high=127, seed=at)
        del quantised[name]
        quantised |= {f"{name}_blocks": blocks, f"{name}_scales": powers}
        tensors[name] = plain_mxfp4(blocks, powers).float()
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
        tensors[name] = plain_fp8(q, s, (8, 16))
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
    """Every weight to the last bit; what one file has turned is multiplied in another order."""
    mine, plain = folders[kind]
    quantised, model = af.load(mine, dtype=dtype), af.load(plain, dtype=dtype or torch.bfloat16)
    weights = model.state_dict()
    assert quantised.state_dict().keys() == weights.keys()
    for name, weight in quantised.state_dict().items():
        same(weight, weights[name])
    out = quantised(IDS)
    assert out.isfinite().all() and out.std() > 0.1
    close = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(out, model(IDS), rtol=close, atol=close)


def test_transformers_reads_the_same_of_that_folder(folders: dict[str, tuple[Path, Path]]) -> None:
    """Only of gpt_oss: for the other it wants a graphics card or another package."""
    library = pytest.importorskip("transformers")
    quantised, plain = folders["gpt_oss"]
    with quiet(library):
        how = {"quantization_config": library.Mxfp4Config(dequantize=True), "dtype": torch.bfloat16}
        theirs = library.GptOssForCausalLM.from_pretrained(quantised, **how).state_dict()
    tensors = load_file(plain / FILE)
    assert theirs.keys() == tensors.keys()
    for name, tensor in theirs.items():
        same(tensor, tensors[name].bfloat16())


@kinds
def test_no_more_is_held_than_the_weights(kind: str, folders: dict[str, tuple[Path, Path]]) -> None:
    """What is made of a tensor of the file does not keep the whole of it."""
    _, tensors = own_form(open_published(folders[kind][0]), kind, dtype=torch.float32)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors.values()}
    assert sum(storage.nbytes() for storage in storages.values()) == sum(tensor.nbytes for tensor in tensors.values())


@kinds
def test_quantised_is_converted_and_reported(
    kind: str, folders: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written is plain, as the model type writes it, and of the same numbers."""
    quantised, plain = folders[kind]
    assert main(["convert", str(quantised), str(tmp_path / "out"), "--to", "hf"]) == 0
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["model_type"] == kind and "quantization_config" not in written and written["dtype"] == "bfloat16"
    ours, theirs = load_file(tmp_path / "out" / FILE), load_file(plain / FILE)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        same(tensor, theirs[name].bfloat16())
    capsys.readouterr()
    change = ["--set", "body.blocks.*.mixer.pattern=causal & window(3)", "--surgery", "report"]
    assert main(["evaluate", str(quantised), *change]) == 0
    assert capsys.readouterr().out == f"kept: all {len(af.load(quantised).state_dict())} weights\n"


# Faults

BLOCKS, POWERS = (f"model.layers.1.mlp.experts.down_proj_{part}" for part in ("blocks", "scales"))
DENSE = "model.layers.0.mlp.up_proj.weight"
INVERSE = f"{DENSE}_scale_inv"
Change = Callable[[Path], object]


def config(folder: Path, **changes: Any) -> None:
    """Other keys of the quantisation."""
    tree = json.loads((folder / "config.json").read_text())
    tree["quantization_config"] |= changes
    (folder / "config.json").write_text(json.dumps(tree))


def weights(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / FILE)


def putting(name: str, value: float) -> Change:
    """One number of a tensor is another."""

    def put(tensors: Tensors) -> None:
        tensor = tensors[name].float()
        tensor.view(-1)[-1] = value
        tensors[name] = tensor.to(tensors[name].dtype)

    return lambda folder: weights(folder, put)


def without(*names: str) -> Change:
    return lambda folder: weights(folder, lambda tensors: [tensors.pop(name) for name in names])


def cut(name: str) -> Change:
    return lambda folder: weights(folder, lambda tensors: tensors.update({name: tensors[name][..., :1]}))


def cast(name: str, dtype: torch.dtype) -> Change:
    return lambda folder: weights(folder, lambda tensors: tensors.update({name: tensors[name].float().to(dtype)}))


FAULTS: dict[str, tuple[str, Change, str]] = {
    "gptq": ("gpt_oss", lambda f: config(f, quant_method="gptq"), "quant_method is 'gptq'.*those read are fp8, mxfp4"),
    "no method": ("gpt_oss", lambda f: config(f, quant_method=None), "quant_method is null"),
    "a key that nothing reads": ("gpt_oss", lambda f: config(f, bits=4), "nothing here reads 'bits'"),
    "another format": ("deepseek_v3", lambda f: config(f, fmt="e5m2"), "fmt should be one of 'e4m3'"),
    "static": ("deepseek_v3", lambda f: config(f, activation_scheme="static"), "activation_scheme should be"),
    "one scale for all": ("deepseek_v3", lambda f: config(f, weight_block_size=None), "weight_block_size should be"),
    "blocks of three axes": ("deepseek_v3", lambda f: config(f, weight_block_size=[1, 2, 3]), "weight_block_size"),
    "other blocks": ("deepseek_v3", lambda f: config(f, weight_block_size=[8, 8]), "blocks of 8 by 8 need"),
    "no scales": ("gpt_oss", without(POWERS), f"down_proj is quantised, and {POWERS} is missing"),
    "no blocks": ("gpt_oss", without(BLOCKS), f"down_proj is quantised, and {BLOCKS} is missing"),
    "no scale": ("deepseek_v3", without(INVERSE), f"{INVERSE} is missing"),
    "no weight": ("deepseek_v3", without(DENSE), f"{DENSE} is missing"),
    "fewer scales": ("gpt_oss", cut(POWERS), "blocks should be"),
    "shorter blocks": ("gpt_oss", cut(BLOCKS), "blocks should be"),
    "fewer scales of blocks": ("deepseek_v3", cut(INVERSE), r"need floating-point scales of the shape \(4, 2\)"),
    "scales that are plain": ("gpt_oss", cast(POWERS, torch.float32), "of uint8"),
    "scales that are whole": ("deepseek_v3", cast(INVERSE, torch.int32), "need floating-point scales"),
    "weights that are plain": ("deepseek_v3", cast(DENSE, torch.bfloat16), "should be torch.float8_e4m3fn"),
    "a scale of 255": ("gpt_oss", putting(POWERS, 255), "some scales are 255, which is not a number"),
    "a scale without end": ("deepseek_v3", putting(INVERSE, math.inf), "some scales are not finite"),
    "a weight that is none": ("deepseek_v3", putting(DENSE, math.nan), "some weights are not a number"),
    "plain as well": (
        "gpt_oss",
        lambda f: weights(f, lambda t: t.update({BLOCKS.removesuffix("_blocks"): torch.ones(3, 64, 64).bfloat16()})),
        "stands there plain, and quantised as",
    ),
    "a layer that is not built": (
        "deepseek_v3",
        without("model.layers.2.eh_proj.weight"),
        "num_hidden_layers is 2, and the file has model.layers.2.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line(
    fault: str, folders: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, spoil, message = FAULTS[fault]
    folder = Path(shutil.copytree(folders[kind][0], tmp_path / "copy"))
    spoil(folder)
    with pytest.raises(InputError, match=message):
        af.load(folder)
    assert main(["evaluate", str(folder), "--surgery", "report"]) == 3
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "Traceback" not in printed.err


def test_numbers_of_8_bits_without_a_config_are_no_weights(
    folders: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    """They are half of the weights; without the config that says so, nothing is guessed."""
    folder = Path(shutil.copytree(folders["deepseek_v3"][0], tmp_path / "copy"))
    tree = json.loads((folder / "config.json").read_text())
    del tree["quantization_config"]
    (folder / "config.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"no place for .*_scale_inv"):
        af.load(folder, dtype=torch.float32)
