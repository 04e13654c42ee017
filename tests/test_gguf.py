"""GGUF: read as other programs read it, written so that they do, and refused in one line where it is damaged."""

import json
import random
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.testing import assert_close

from anyformer.checkpoints import gguf as reader
from anyformer.checkpoints.foreign import Foreign
from anyformer.checkpoints.gguf import FLOATS, TYPES, open_gguf
from anyformer.checkpoints.gguf_models import LLAMA3, read_gguf
from anyformer.checkpoints.gguf_tokenizer import WORDS, tokenizer_of
from anyformer.checkpoints.gguf_write import Type, write_gguf
from anyformer.core.errors import ConfigError, InputError, ResourceError
from anyformer.data.tokenizers.wordpiece import bert
from anyformer.models.published import declared, load_published
from anyformer.models.rope import older
from anyformer.runs.files import Disk

# A file, byte by byte

TEXTS = ["Once upon a time, there was a naïve café.", "  two  spaces\n\n\tand 12345 It's", "你好, 😀 ab", "", " "]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def claim(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + axes + struct.pack("<IQ", kind, offset)


def file(keys: list[bytes], claims: list[bytes], data: bytes = b"", version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(claims), len(keys)) + b"".join((*keys, *claims))
    return head + bytes(-len(head) % 32) + data


GOOD = file(
    [
        key("a", 8, text("b")),
        key("n", 9, struct.pack("<IQ3i", 5, 3, -1, 2, 3)),
        key("t", 9, struct.pack("<IQ", 8, 2) + text("é") + text("")),
        key("yes", 7, b"\1"),
        key("x", 12, struct.pack("<d", 0.1)),
    ],
    [claim("w", (2, 3), 0, 0), claim("v", (5,), 1, 32)],
    struct.pack("<6f", *range(6)) + bytes(8) + np.arange(5, dtype="<f2").tobytes() + bytes(22),
)


def test_metadata_are_plain_data_and_shapes_in_torchs_order(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(GOOD)
    found = open_gguf(tmp_path / "x.gguf")
    assert found.metadata == {"a": "b", "n": [-1, 2, 3], "t": ["é", ""], "yes": True, "x": 0.1}
    assert list(found.tensors) == ["w", "v"]
    assert_close(found.tensors["w"], torch.arange(6.0).view(2, 3))
    assert_close(found.tensors["v"], torch.arange(5.0))
    (tmp_path / "unpadded.gguf").write_bytes(GOOD[:-22])  # as some writers leave the last one
    assert_close(open_gguf(tmp_path / "unpadded.gguf").tensors["v"], torch.arange(5.0))


def wild(count: int = 2**60) -> bytes:
    return struct.pack("<Q", count)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "begins with b''"),
    "other": (b"PK\3\4" + bytes(40), "begins with"),
    "short": (b"GGUF\3\0\0\0", "cut short"),
    "version": (file([], [], version=1), "version 1"),
    "big-endian": (file([], [], version=3 << 24), "big-endian"),
    "tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "claims 1152921504606846976 tensors"),
    "keys": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "claims 1152921504606846976 keys"),
    "text": (file([key("a", 8, wild())], []), "claims 1152921504606846976 bytes"),
    "long text": (file([key("a", 8, wild(2**20))], []), "cut short, or made up"),
    "key's length": (file([wild()], []), "a key claims"),
    "list": (file([key("a", 9, struct.pack("<I", 4) + wild())], []), "claims 1152921504606846976 items"),
    "list of texts": (file([key("a", 9, struct.pack("<I", 8) + wild(2**22))], []), "cut short, or made up"),
    "lists in all": (
        file([key(name, 9, struct.pack("<IQ", 0, 2**21 + 1) + bytes(2**21 + 1)) for name in "ab"], []),
        "'b' claims 2097153 items",
    ),
    "list of lists": (file([key("a", 9, struct.pack("<IQ", 9, 1))], []), "of type 9"),
    "type": (file([key("a", 77, b"")], []), "of type 77"),
    "truth": (file([key("a", 7, b"\2")], []), "neither true nor false"),
    "no text": (file([key("a", 8, struct.pack("<Q", 1) + b"\xff")], []), "UTF-8"),
    "key twice": (file([key("a", 0, b"1")] * 2, []), "'a' stands twice"),
    "tensor twice": (file([], [claim("w", (1,), 0, 0)] * 2, bytes(64)), "'w' stands twice"),
    "way out": (file([], [claim("../w", (1,), 0, 0)], bytes(32)), "not paths out of a folder"),
    "axes": (file([], [claim("w", (1,) * 9, 0, 0)], bytes(32)), "9 axes"),
    "nothing in it": (file([], [claim("w", (3, 0), 0, 0)]), "cannot have"),
    "block": (file([], [claim("w", (33,), 8, 0)], bytes(96)), r"\(33,\), which Q8_0 cannot have"),
    "ggml's type": (file([], [claim("w", (256,), 16, 0)], bytes(96)), "type 16; those read are F32"),
    "out of the file": (file([], [claim("w", (2**40,), 0, 0)], bytes(32)), "'w' ends at"),
    "out of any memory": (file([], [claim("w", (2**62, 2**62), 0, 0)], bytes(32)), "'w' ends at"),
    "overlap": (file([], [claim("w", (9,), 0, 0), claim("v", (9,), 0, 32)], bytes(128)), "'v' overlaps"),
    "hole": (file([], [claim("w", (9,), 0, 0), claim("v", (9,), 0, 96)], bytes(256)), "32 bytes unused"),
    "too long": (file([], [claim("w", (8,), 0, 0)], bytes(64)), "too long"),
    "alignment": (file([key("general.alignment", 4, struct.pack("<I", 48))], []), "a power of two"),
    "no alignment": (file([key("general.alignment", 4, bytes(4))], []), "a power of two"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_refused_in_one_line_with_little_memory(name: str, tmp_path: Path) -> None:
    data, reason = BAD[name]
    (tmp_path / "x.gguf").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=reason) as error:
            open_gguf(tmp_path / "x.gguf")
        assert tracemalloc.get_traced_memory()[1] < 2**20 or name == "lists in all"
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)


def test_every_cut_and_every_flipped_byte_is_refused_or_read(tmp_path: Path) -> None:
    def read(data: bytes) -> None:
        (tmp_path / "x.gguf").write_bytes(data)
        for tensor in open_gguf(tmp_path / "x.gguf").tensors.values():
            assert tensor.dtype == torch.float32

    for size in range(len(GOOD) - 22):
        with pytest.raises(InputError):
            read(GOOD[:size])
    chance = random.Random(0)
    for at in range(len(GOOD)):
        damaged = bytearray(GOOD)
        damaged[at] ^= 1 << chance.randrange(8)
        try:
            read(bytes(damaged))
        except InputError as error:
            assert "\n" not in str(error)


def _plain(data: np.ndarray[Any, Any], name: str) -> Tensor:
    """Numbers out of their blocks, as transformers does it; it has no types with a fifth bit set apart."""
    if name in ("Q5_0", "Q5_1"):
        low, high = data[:, -16:], data[:, -20:-16].copy().view("<u4")
        bits = np.concatenate((low & 15, low >> 4), 1) | ((high >> np.arange(32, dtype="<u4") & 1) << 4).astype(
            np.uint8
        )
        scales = data[:, :-20].copy().view("<f2").astype(np.float32)
        least = scales[:, 1:] if name == "Q5_1" else -16 * scales
        return torch.from_numpy(bits.astype(np.float32) * scales[:, :1] + least)
    dequant = pytest.importorskip("transformers.integrations.gguf.dequant")
    return dequant.dequantize(torch.from_numpy(data), TYPES[name][0])


@pytest.mark.parametrize("name", TYPES)
def test_blocks_are_taken_out_as_other_programs_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CHUNK", 512)  # so that there are several parts
    number, numbers, size = TYPES[name]
    chance = np.random.default_rng(0)
    if name in FLOATS:
        ours = torch.from_numpy(chance.normal(size=(3, 256))).to(FLOATS[name])
        data, expected = ours.view(torch.uint8).numpy(), ours.float()
    else:
        data = chance.integers(0, 256, (3 * 256 // numbers, size), dtype=np.uint8)
        for at in (0, 2, size - 2):  # wherever a half-precision scale may be: no infinity
            data[:, at + 1] &= 0b10111011
        expected = _plain(data, name).view(3, 256)
    raw = data.tobytes()
    (tmp_path / "x.gguf").write_bytes(file([], [claim("w", (3, 256), number, 0)], raw + bytes(-len(raw) % 32)))
    found = open_gguf(tmp_path / "x.gguf").tensors["w"]
    assert found.shape == (3, 256) and found.isfinite().all() and len(found.unique()) > 64
    assert_close(found, expected, rtol=0, atol=0)
    kind = gguf.GGMLQuantizationType[name]
    assert np.array_equal(found.numpy().ravel(), gguf.dequantize(data, kind).ravel())


# Whole models

SMALL = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 0.03,
    "rope_parameters": {"rope_type": "default", "rope_theta": 123.0},
}
SLOWED = {"rope_type": "llama3", "factor": 5.0, **LLAMA3}
YARN = {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 20, "beta_fast": 5.0, "beta_slow": 0.5}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"head_dim": 10, "attention_bias": True, "mlp_bias": True}),
    "llama tied": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 6}),
    "llama linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 123.0, "factor": 2.5}}),
    "llama yarn": ("llama", {"rope_parameters": {"rope_theta": 123.0, **YARN}}),
    "llama slowed": ("llama", {"head_dim": 32, "rope_parameters": {"rope_theta": 5e5, **SLOWED}}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 10, "attention_bias": True}),
    "gemma": ("gemma", {"head_dim": 10}),
}


def reference(name: str) -> Any:
    """A model of transformers with large random weights."""
    transformers = pytest.importorskip("transformers")
    kind, changes = CASES[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SMALL, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.5)
    return model.eval()


def foreign(model: Any) -> Foreign:
    """What a folder of that model holds."""
    config = older(json.loads(model.config.to_json_string(use_diff=False)))
    tied = {"lm_head.weight"} if config["tie_word_embeddings"] else set()
    known = {"id2label", "label2id", "num_labels", "problem_type"}
    config = {name: value for name, value in config.items() if name not in known}
    return Foreign(config, {name: tensor for name, tensor in model.state_dict().items() if name not in tied})


@pytest.mark.parametrize("name", CASES)
def test_a_model_comes_back_with_its_declaration_and_bit_for_bit(name: str, tmp_path: Path) -> None:
    source = foreign(reference(name))
    write_gguf(source, tmp_path / "x.gguf", "F32")
    found = read_gguf(tmp_path / "x.gguf")
    assert declared(found.config, "found") == declared(source.config, "source")
    assert found.tensors.keys() == source.tensors.keys()
    for tensor in found.tensors:
        if name == "gemma" and tensor.endswith("norm.weight"):  # (w + 1) - 1 rounds
            assert_close(found.tensors[tensor], source.tensors[tensor], rtol=0, atol=3e-7)
        else:
            assert torch.equal(found.tensors[tensor], source.tensors[tensor]), tensor


def test_a_read_model_runs(tmp_path: Path) -> None:
    write_gguf(llama(), tmp_path / "x.gguf", "F32")
    found = read_gguf(tmp_path / "x.gguf")
    ours, same = (load_published(part, "x") for part in (found, llama()))
    ids = torch.arange(40).view(2, 20) * 7
    assert torch.equal(ours(ids), same(ids))


@pytest.mark.parametrize("name", ["llama", "llama tied", "qwen2", "qwen3"])
def test_transformers_reads_what_is_written(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    utils = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    write_gguf(foreign(theirs), tmp_path / "x.gguf", "F32")
    read = utils.load_gguf_checkpoint(str(tmp_path / "x.gguf"), return_tensors=True, model_to_load=theirs)
    for tensor, value in theirs.state_dict().items():
        if not (name == "llama tied" and tensor == "lm_head.weight"):
            assert torch.equal(read["tensors"][tensor], value), tensor
    for field in ("hidden_size", "num_key_value_heads", "num_hidden_layers", "intermediate_size", "vocab_size"):
        assert read["config"][field] == getattr(theirs.config, field)


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_smaller_types_hold_what_the_package_says(kind: Literal["F16", "Q8_0"], tmp_path: Path) -> None:
    source = Foreign(
        {**CONFIG, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
        tensors(64, 36, 4, 2),
    )
    write_gguf(source, tmp_path / "x.gguf", kind)
    found, written = read_gguf(tmp_path / "x.gguf"), open_gguf(tmp_path / "x.gguf")
    types = {name: block.type for name, block in written.blocks.items()}
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types["blk.0.attn_q.weight"] == types["token_embd.weight"] == kind
    assert types["blk.0.ffn_down.weight"] == "F16"  # rows of 36 are no blocks of 32
    for name, value in source.tensors.items():
        if value.dim() == 1:
            expected = value
        elif kind == "F16" or value.shape[-1] % 32:
            expected = value.half().float()
        else:  # each row by itself, in whatever order the rows are
            q8 = gguf.GGMLQuantizationType.Q8_0
            expected = torch.from_numpy(gguf.dequantize(gguf.quantize(value.numpy(), q8), q8))
        assert torch.equal(found.tensors[name], expected), name


CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 36,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


def tensors(width: int = 8, hidden: int = 36, heads: int = 2, kv_heads: int = 1) -> dict[str, Tensor]:
    """Of one layer."""
    size, layer = width // heads, "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (300, width),
        "model.norm.weight": (width,),
        f"{layer}.input_layernorm.weight": (width,),
        f"{layer}.post_attention_layernorm.weight": (width,),
        f"{layer}.self_attn.q_proj.weight": (width, width),
        f"{layer}.self_attn.k_proj.weight": (kv_heads * size, width),
        f"{layer}.self_attn.v_proj.weight": (kv_heads * size, width),
        f"{layer}.self_attn.o_proj.weight": (width, width),
        f"{layer}.mlp.gate_proj.weight": (hidden, width),
        f"{layer}.mlp.up_proj.weight": (hidden, width),
        f"{layer}.mlp.down_proj.weight": (width, hidden),
    }
    chance = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=chance) for name, shape in shapes.items()}


def llama(**changes: Any) -> Foreign:
    return Foreign({**CONFIG, **changes}, tensors())


def test_rows_go_to_where_llama_cpp_has_them(tmp_path: Path) -> None:
    write_gguf(Foreign({**CONFIG, "hidden_size": 12}, tensors(12)), tmp_path / "x.gguf", "F32")
    theirs, ours = open_gguf(tmp_path / "x.gguf").tensors["blk.0.attn_q.weight"], tensors(12)
    for head in range(2):
        for pair in range(3):
            for half in range(2):  # half a head apart here, neighbours there
                row = ours["model.layers.0.self_attn.q_proj.weight"][head * 6 + half * 3 + pair]
                assert torch.equal(theirs[head * 6 + pair * 2 + half], row)


UNWRITTEN: dict[str, tuple[Foreign, Type, str]] = {
    "model type": (llama(model_type="bert"), "F32", "'bert'; those are llama"),
    "activation": (llama(hidden_act="gelu"), "F32", "hidden_act should be one of 'silu'"),
    "unknown key": (llama(logit_scale=2.0), "F32", "'logit_scale'"),
    "scaling": (llama(rope_scaling={"rope_type": "longrope"}), "F32", "rope_type should be one of"),
    "tensor": (Foreign(CONFIG, {**tensors(), "x.weight": torch.ones(1)}), "F32", "no place for x.weight"),
    "half": (
        Foreign(CONFIG, {**tensors(), "model.embed_tokens.weight": torch.full((300, 8), 7e4)}),
        "F16",
        "token_embd.weight has values that F16 cannot hold",
    ),
    "no number": (
        Foreign(CONFIG, {**tensors(), "model.embed_tokens.weight": torch.full((300, 8), torch.nan)}),
        "F16",
        "cannot hold",
    ),
    "wordpiece": (
        Foreign(CONFIG, tensors(), bert(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"], True).definition),
        "F32",
        "of type WordPiece",
    ),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_what_a_file_cannot_say_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    model, kind, reason = UNWRITTEN[name]
    with pytest.raises((ConfigError, InputError), match=reason) as error:
        write_gguf(model, tmp_path / "x.gguf", kind)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


class NoSync(Disk):
    def fsync(self, path: Path) -> None:
        raise OSError(5, "Input/output error")


def test_a_failing_disk_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("old")
    with pytest.raises(ResourceError):
        write_gguf(llama(), tmp_path / "x.gguf", "F32", NoSync())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A file with other metadata, and no tensors' worth of care."""
    found = open_gguf(path)
    keys = dict(found.metadata)
    change(keys)
    writer = gguf.GGUFWriter(path, keys.pop("general.architecture"))
    for name, value in keys.items():
        kind = gguf.GGUFValueType.get_type(value)
        writer.add_key_value(name, value, kind)
    for name, tensor in found.tensors.items():
        writer.add_tensor(name, tensor.numpy().copy())
    path.unlink()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


UNREAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "architecture": (lambda keys: keys.update({"general.architecture": "mamba"}), "'mamba'; those read are"),
    "experts": (lambda keys: keys.update({"llama.expert_count": 8}), "expert_count should be one of 0"),
    "unknown key": (lambda keys: keys.update({"llama.attention.clamp_kqv": 2.0}), "clamp_kqv"),
    "part": (lambda keys: keys.update({"split.count": 3}), "one part of several"),
    "no layers": (lambda keys: keys.pop("llama.block_count"), "block_count is missing"),
    "heads": (lambda keys: keys.update({"llama.attention.head_count": 3, "llama.attention.head_count_kv": 3}), "rows"),
    "list of heads": (lambda keys: keys.update({"llama.attention.head_count": [2, 2]}), "a whole number from 1"),
    "negative": (lambda keys: keys.update({"llama.embedding_length": -8}), "a whole number from 1"),
    "words": (lambda keys: keys.update({"llama.vocab_size": 7}), "vocab_size should be one of 300"),
    "rotation": (lambda keys: keys.update({"llama.rope.dimension_count": 2}), "dimension_count should be one of 4"),
    "tokenizer": (lambda keys: keys.update({"tokenizer.ggml.model": "rwkv"}), "'rwkv'; those read are llama and gpt2"),
    "no tokens": (lambda keys: keys.update({"tokenizer.ggml.model": "llama"}), "tokens should be of type list"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_understood_is_refused(name: str, tmp_path: Path) -> None:
    change, reason = UNREAD[name]
    write_gguf(llama(), tmp_path / "x.gguf", "F32")
    rewritten(tmp_path / "x.gguf", change)
    with pytest.raises(InputError, match=reason) as error:
        read_gguf(tmp_path / "x.gguf")
    assert "\n" not in str(error.value)


def test_other_slow_turns_than_llama_3s_are_refused(tmp_path: Path) -> None:
    scaling = {**SLOWED, "low_freq_factor": 2.0}
    config = {**CONFIG, "hidden_size": 64, "rope_theta": 5e5, "rope_scaling": scaling}
    write_gguf(Foreign(config, tensors(64)), tmp_path / "x.gguf", "F32")
    with pytest.raises(InputError, match="are not Llama 3's"):
        read_gguf(tmp_path / "x.gguf")


# Tokenizers


def spaced(prefix: bool = True) -> str:
    """BPE over pieces with spaces, as Llama's, whose merges have an order that scores can say."""
    letters = ["▁", *"abcdeé"]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "ab", "▁ab", "abc", *letters]
    ids = {word: at for at, word in enumerate(words)}
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b"), ("▁", "ab"), ("ab", "c")]
    backend = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    first = [normalizers.Prepend("▁")] if prefix else []
    backend.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend.to_str()


def byte_level(pre: str) -> str:
    """Byte-level BPE that cuts words as a published one does."""
    words = WORDS[pre]
    backend = Tokenizer(models.BPE(ignore_merges=words.whole))
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<|endoftext|>", "<|begin|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator(TEXTS * 3, trainer)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken("USER", normalized=False)])
    tree = json.loads(backend.to_str())
    tree["normalizer"] = words.normalizer
    tree["pre_tokenizer"] = splitter(words.splitter)
    return Tokenizer.from_str(json.dumps(tree)).to_str()


def splitter(part: Mapping[str, Any]) -> dict[str, Any]:
    inner = [splitter(one) for one in part.get("pretokenizers", ())]
    byte = {"trim_offsets": True} if part["type"] == "ByteLevel" else {}
    return {**part, **byte, **({"pretokenizers": inner} if inner else {})}


DEFINITIONS = {
    "spaced": lambda: spaced(),
    "no prefix": lambda: spaced(prefix=False),
    **{pre: (lambda pre=pre: byte_level(pre)) for pre in WORDS},
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_tokenizer_comes_back(name: str, tmp_path: Path) -> None:
    definition = DEFINITIONS[name]()
    ends = {"bos_token_id": 1, "eos_token_id": [0, 2]}
    write_gguf(Foreign({**CONFIG, **ends}, tensors(), definition, "{{ x }}"), tmp_path / "x.gguf", "F32")
    found = read_gguf(tmp_path / "x.gguf")
    assert found.chat_template == "{{ x }}"
    assert (found.config["bos_token_id"], found.config["eos_token_id"]) == (1, 0)
    ours, theirs = json.loads(found.tokenizer or ""), json.loads(definition)
    unused = {f"[PAD{number}]" for number in range(300)}
    ours["model"]["vocab"] = {word: at for word, at in ours["model"]["vocab"].items() if word not in unused}
    theirs["model"]["vocab"] |= {token["content"]: token["id"] for token in theirs["added_tokens"]}
    assert ours == theirs


@pytest.mark.parametrize("name", ["spaced", "gpt-2", "llama-bpe"])
def test_transformers_makes_the_same_tokens(name: str, tmp_path: Path) -> None:
    theirs = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    write_gguf(Foreign(CONFIG, tensors(), DEFINITIONS[name]()), tmp_path / "x.gguf", "F32")
    ours = Tokenizer.from_str(read_gguf(tmp_path / "x.gguf").tokenizer or "")
    architecture, tokenizer, _ = theirs.get_gguf_tokenizer(str(tmp_path / "x.gguf"))
    backend, _ = theirs.convert_gguf_tokenizer(architecture, {**tokenizer, "scores": scores(tmp_path / "x.gguf")})
    for one in TEXTS:
        ids = ours.encode(one, add_special_tokens=False).ids
        if not (name == "spaced" and one.startswith(" ")):  # which its newer form prepends no other space to
            assert ids == backend.encode(one, add_special_tokens=False).ids, one


def scores(path: Path) -> list[float]:
    return open_gguf(path).metadata.get("tokenizer.ggml.scores", [])


def test_merges_that_no_scores_make_are_refused(tmp_path: Path) -> None:
    tree = json.loads(spaced())
    tree["model"]["merges"].remove(["▁", "ab"])
    with pytest.raises(ConfigError, match="no scores make"):
        write_gguf(Foreign(CONFIG, tensors(), json.dumps(tree)), tmp_path / "x.gguf", "F32")


def test_an_unknown_way_to_cut_words_is_refused_both_ways(tmp_path: Path) -> None:
    tree = json.loads(byte_level("gpt-2"))
    tree["pre_tokenizer"]["add_prefix_space"] = True
    with pytest.raises(ConfigError, match="none of gpt-2"):
        write_gguf(Foreign(CONFIG, tensors(), json.dumps(tree)), tmp_path / "x.gguf", "F32")
    with pytest.raises(InputError, match="pre is 'missing'; those known are gpt-2"):
        tokenizer_of({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"]}, "x")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"tokens": ["a", "a"]}, "both 'a'"),
        ({"tokens": []}, "no tokens"),
        ({"tokens": [1]}, "list of type str"),
        ({"tokens": ["a"], "scores": [0.0, 1.0]}, "2 scores for 1 tokens"),
        ({"tokens": ["a"], "scores": [float("nan")]}, "is nan"),
        ({"tokens": ["a"], "token_type": [9]}, "of kind 9"),
        ({"tokens": ["a" * 300]}, "has 300 letters"),
        ({"tokens": ["a"], "bos_token_id": 7}, "there are 1 tokens"),
        ({"tokens": ["a"], "model": "gpt2", "pre": "gpt-2", "merges": ["a  a"]}, "is no merge"),
        ({"tokens": ["a"], "model": "gpt2", "pre": "gpt-2", "merges": ["a b"]}, "library says"),
    ],
)
def test_a_damaged_tokenizer_is_refused(keys: dict[str, Any], reason: str) -> None:
    metadata = {f"tokenizer.ggml.{name}": value for name, value in {"model": "llama", **keys}.items()}
    with pytest.raises(InputError, match=reason) as error:
        tokenizer_of(metadata, "x.gguf")
    assert "\n" not in str(error.value)


@pytest.mark.needs_shared
def test_a_real_llama_and_its_tokenizer_come_back(shared: Path, tmp_path: Path) -> None:
    from anyformer.checkpoints.files import Weights

    folder = shared / "stories260K"
    config, definition = json.loads((folder / "config.json").read_text()), (folder / "tokenizer.json").read_text()
    source = Foreign(config, Weights.open(folder), definition)
    write_gguf(source, tmp_path / "x.gguf", "F32")
    found = read_gguf(tmp_path / "x.gguf")
    assert found.tensors.keys() == source.tensors.keys()
    assert all(torch.equal(found.tensors[name], source.tensors[name]) for name in source.tensors)
    assert json.loads(found.tokenizer or "") == json.loads(definition)
    assert {key for key, value in config.items() if found.config.get(key) != value} == {"torch_dtype"}
