"""Files of other programs: llama2.c, minGPT, pickles, SentencePiece, vocabularies; damaged ones refused in one line."""

import base64
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from anyformer.checkpoints.files import INDEX, Weights
from anyformer.checkpoints.llama2c import read_llama2c
from anyformer.checkpoints.mingpt import read_mingpt
from anyformer.checkpoints.pickles import BIN, BIN_INDEX, to_safetensors, unpickled
from anyformer.checkpoints.pieces import BYTE, BYTES, CONTROL, NORMAL, UNKNOWN, USER
from anyformer.checkpoints.sentencepiece import backend_of, read_sentencepiece
from anyformer.checkpoints.tokenizers import definition
from anyformer.core.errors import InputError
from anyformer.models.published import load_published

GOLDEN = Path(__file__).parent / "golden" / "data"


def one_line(error: pytest.ExceptionInfo[InputError]) -> bool:
    return "\n" not in str(error.value) and len(str(error.value)) < 500


# llama2.c

C, F, L, H, G, V, T = 18, 20, 2, 3, 1, 9, 5
D = C // H


def llama2c(head: bool) -> tuple[bytes, dict[str, Tensor]]:
    """A file, written value by value as its own exporter does, and the same model as Hugging Face has it."""
    chance = torch.Generator().manual_seed(0)
    ours: dict[str, Tensor] = {}

    def drawn(name: str, *shape: int) -> None:
        ours[name] = torch.randn(shape, generator=chance)

    drawn("model.embed_tokens.weight", V, C)
    for layer in range(L):
        at = f"model.layers.{layer}"
        for name, rows in (("q", C), ("k", G * D), ("v", G * D), ("o", C)):
            drawn(f"{at}.self_attn.{name}_proj.weight", rows, C)
        for name, shape in (("gate", (F, C)), ("down", (C, F)), ("up", (F, C))):
            drawn(f"{at}.mlp.{name}_proj.weight", *shape)
        for name in ("input", "post_attention"):
            drawn(f"{at}.{name}_layernorm.weight", C)
    drawn("model.norm.weight", C)
    if head:
        drawn("lm_head.weight", V, C)

    def neighbours(tensor: Tensor) -> Tensor:
        heads = len(tensor) // D
        return torch.stack([tensor[h * D + (r % 2) * (D // 2) + r // 2] for h in range(heads) for r in range(D)])

    data = struct.pack("<7i", C, F, L, H, G, -V if head else V, T)
    parts = [ours["model.embed_tokens.weight"]]
    for name in (
        *("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        *("post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"),
    ):
        for layer in range(L):
            tensor = ours[f"model.layers.{layer}.{name}.weight"]
            parts.append(neighbours(tensor) if name.endswith(("q_proj", "k_proj")) else tensor)
    parts += [ours["model.norm.weight"], torch.full((T, D // 2), 7.0), torch.full((T, D // 2), 8.0)]
    parts += [ours["lm_head.weight"]] if head else []
    return data + b"".join(part.numpy().tobytes() for part in parts), ours


@pytest.mark.parametrize("head", [True, False])
def test_llama2c_comes_as_hugging_face_has_it(head: bool, tmp_path: Path) -> None:
    data, ours = llama2c(head)
    (tmp_path / "model.bin").write_bytes(data)
    found = read_llama2c(tmp_path / "model.bin")
    assert found.tensors.keys() == ours.keys()
    assert all(torch.equal(found.tensors[name], ours[name]) for name in ours)
    assert found.config["tie_word_embeddings"] is not head
    assert load_published(found, "model.bin")(torch.arange(8).view(2, 4)).shape == (2, 4, V)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut short"),
        (llama2c(True)[0][:-4], "cut short"),
        (llama2c(True)[0] + bytes(4), "too long"),
        (struct.pack("<7i", C, F, L, H, G, V, -T), "no .bin of llama2.c"),
        (struct.pack("<7i", C, F, 2**30, H, G, V, T), "no .bin of llama2.c"),
        (struct.pack("<7i", C, F, L, 5, G, V, T), "no .bin of llama2.c"),
        (struct.pack("<7i", 2**24, 2**24, 9999, 1, 1, 2**24, 2**24), "cut short"),
        (struct.pack("<7i", -(2**31), F, L, H, G, V, T), "no .bin of llama2.c"),
        (struct.pack("<7i", 0x616B3432, 1, 2, 3, 4, 5, 6), "export it as version 0"),
    ],
)
def test_a_damaged_llama2c_file_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(InputError, match=reason) as error:
        read_llama2c(tmp_path / "model.bin")
    assert one_line(error)


# minGPT


def mingpt(**changes: Any) -> dict[str, Any]:
    """A file with one tensor."""
    data = base64.b64encode(torch.arange(6.0).numpy().tobytes()).decode()
    config = {"n_layer": 1, "n_head": 1, "n_embd": 2, "vocab_size": 3, "block_size": 4}
    return {
        "config": config,
        "transformer.wte.weight": {"shape": [3, 2], "dtype": "torch.float32", "data": data},
    } | changes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config": None}, "should be a table"),
        ({"config": {"n_layer": 1}}, "n_head is missing"),
        ({"config": {**mingpt()["config"], "n_head": -1}}, "n_head should be a whole number"),
        ({"config": {**mingpt()["config"], "rotary": True}}, "'rotary'"),
        ({"x": 7}, "'x' should have a shape"),
        ({"x": {"shape": [2], "dtype": "torch.float16", "data": ""}}, "'x' should have a shape"),
        ({"x": {"shape": [-2], "dtype": "torch.float32", "data": ""}}, "which no tensor has"),
        ({"x": {"shape": [2**50], "dtype": "torch.float32", "data": ""}}, "which no tensor has"),
        ({"x": {"shape": [2], "dtype": "torch.float32", "data": "AAAA"}}, "3 bytes of data"),
        ({"x": {"shape": [2], "dtype": "torch.float32", "data": "*"}}, "no base64"),
    ],
)
def test_a_damaged_mingpt_file_is_refused(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(mingpt()))
    assert torch.equal(read_mingpt(tmp_path / "x.json").tensors["transformer.wte.weight"], torch.arange(6.0).view(3, 2))
    (tmp_path / "x.json").write_text(json.dumps(mingpt(**changes)))
    with pytest.raises(InputError, match=reason) as error:
        read_mingpt(tmp_path / "x.json")
    assert one_line(error)


@pytest.mark.needs_shared
def test_a_real_mingpt_sorts(shared: Path) -> None:
    model = load_published(read_mingpt(shared / "gpt-nano-sort.json"), "gpt-nano-sort.json")
    letters = torch.cartesian_prod(*[torch.arange(3)] * 6)  # all that it can be asked
    ids = letters
    for _ in range(6):
        ids = torch.cat((ids, model(ids)[:, -1:].argmax(-1)), 1)
    right = (ids[:, 6:] == letters.sort().values).all(1)
    assert ids[(letters == torch.tensor([2, 1, 0, 1, 1, 2])).all(1), 6:].tolist() == [[0, 1, 1, 1, 2, 2]]
    assert right.float().mean() > 0.99


# Pickles

WEIGHTS = {"a": torch.arange(12.0).view(3, 4), "b": torch.arange(6).view(2, 3).mT, "c": torch.ones(5).half()}


class Bomb:
    """What a crafted file runs when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_pickles_become_safetensors(tmp_path: Path) -> None:
    torch.save({**WEIGHTS, "tied": WEIGHTS["a"]}, tmp_path / BIN)
    to_safetensors(tmp_path, tmp_path / "out")
    found = Weights.open(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors"}
    assert found.keys() == {*WEIGHTS, "tied"}
    assert all(torch.equal(found[name], WEIGHTS[name]) and found[name].dtype == WEIGHTS[name].dtype for name in WEIGHTS)


def test_shards_become_shards_and_a_bomb_among_them_leaves_nothing(tmp_path: Path) -> None:
    names = {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}
    for tensor, file in names.items():
        torch.save({tensor: WEIGHTS[tensor]}, tmp_path / file)
    (tmp_path / BIN_INDEX).write_text(json.dumps({"weight_map": names}))
    to_safetensors(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / INDEX).is_file()
    found = Weights.open(tmp_path / "out")
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in names)
    shutil.rmtree(tmp_path / "out")
    torch.save({"b": Bomb(tmp_path / "run")}, tmp_path / names["b"])
    with pytest.raises(InputError, match=r"asks to run posix\.system") as error:
        to_safetensors(tmp_path, tmp_path / "out")
    assert one_line(error)
    assert not (tmp_path / "out").exists() and not (tmp_path / "run").exists()


def test_a_pickle_that_wants_all_memory_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(70_001)}, tmp_path / BIN, _use_new_zipfile_serialization=False)
    data = (tmp_path / BIN).read_bytes().replace(struct.pack("<i", 70_001), struct.pack("<i", 2**31 - 1))
    (tmp_path / BIN).write_bytes(data)  # 8 GB, it says
    with pytest.raises(InputError, match="far more memory") as error:
        to_safetensors(tmp_path, tmp_path / "out")
    assert one_line(error) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ([WEIGHTS["a"]], "holds a list"),
        ({"a": {"b": WEIGHTS["a"]}}, "'a' is a dict"),
        ({1: WEIGHTS["a"]}, "'1' is a Tensor, not a tensor with a name"),
        ({"a": torch.zeros(1).expand(2**20, 2**30)}, "claim far more bytes"),
    ],
)
def test_what_is_no_table_of_tensors_is_refused(held: object, reason: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / BIN)
    with pytest.raises(ValueError, match=reason):
        unpickled(tmp_path / BIN)


def test_older_files_and_bare_bombs(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / BIN, _use_new_zipfile_serialization=False)
    assert unpickled(tmp_path / BIN).keys() == WEIGHTS.keys()
    (tmp_path / BIN).write_bytes(pickle.dumps(Bomb(tmp_path / "run"), protocol=2))
    with pytest.raises(pickle.UnpicklingError):
        unpickled(tmp_path / BIN)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"weight_map": {"a": "../../etc/passwd"}}, "is no file of this folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "is no file of this folder"),
        ({"weight_map": {"a": "link.bin"}}, "is no file of this folder"),
        ({"weight_map": {"a": "other.bin"}}, "listed and missing"),
        ({"weight_map": {"a": 7}}, "should have a weight_map"),
        ({"weight_map": {}}, "should have a weight_map"),
        (None, "has no pytorch_model.bin"),
    ],
)
def test_a_damaged_index_is_refused_before_anything_is_opened(index: Any, reason: str, tmp_path: Path) -> None:
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    if index is not None:
        (tmp_path / BIN_INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=reason) as error:
        to_safetensors(tmp_path, tmp_path / "out")
    assert one_line(error) and not (tmp_path / "out").exists()


# SentencePiece


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def piece(text: str, score: float = 0.0, kind: int = NORMAL) -> bytes:
    return message(1, message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, kind))


FIRST = piece("<unk>", kind=UNKNOWN) + piece("<s>", kind=CONTROL) + piece("</s>", kind=CONTROL)
PAIRS = FIRST + b"".join(
    (
        *(piece(byte, kind=BYTE) for byte in BYTES),
        *(piece(text, score) for text, score in (("▁a", -0.0), ("ab", -1.0), ("▁ab", -2.0), ("bb", -3.0))),
        *(piece(letter, -9.0) for letter in "▁ab"),
        piece("USER", kind=USER),
    )
)
PAIRS += message(2, number(3, 2)) + message(3, number(4, 0))


@pytest.mark.parametrize("name", ["bpe", "unigram"])
def test_a_real_model_makes_the_tokens_that_sentencepiece_makes(name: str) -> None:
    path = GOLDEN / f"sentencepiece-{name}.model"
    backend = backend_of(read_sentencepiece(path), str(path))
    for text, ids in json.loads((GOLDEN / "sentencepiece.json").read_text())[name]:
        assert backend.encode(text, add_special_tokens=False).ids == ids, text


def test_pairs_are_merged_by_their_scores(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(PAIRS)
    backend = Tokenizer.from_str(definition(tmp_path) or "")

    def tokens(text: str) -> list[str]:
        return backend.encode(text, add_special_tokens=False).tokens

    assert tokens("abb bb") == ["▁ab", "b", "▁", "bb"]  # ▁a, ▁ab and only then bb
    assert tokens("bab") == ["▁", "b", "ab"]
    assert tokens("aUSER é") == ["▁a", "USER", "▁", "▁", "<0xC3>", "<0xA9>"]
    assert backend.decode(backend.encode(" ab é").ids) == " ab é"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has no tokens"),
        (PAIRS[:-3], "cut short"),
        (b"\xff" * 20, "cut short, or no SentencePiece model"),
        (b"\x0a" + varint(2**60), "a field of 1152921504606846976 bytes"),
        (b"\x0b", "wire type 3"),
        (number(1, 5), "a number where a message should be"),
        (piece("a") * 2, "are both 'a'"),
        (piece("a", kind=9), "of kind 9"),
        (piece("a", float("inf")), "is inf"),
        (message(1, message(1, b"\xff")), "without text or score"),
        (FIRST + message(2, number(3, 3)), "are words or characters"),
        (FIRST + message(2, number(24, 1)), "spaces stand behind words"),
        (FIRST + message(3, message(2, b"\xff\xff\xff\xff\xff")), "library says"),
        (FIRST + piece("a" * 300) + message(2, number(3, 2)), "has 300 letters"),
    ],
)
def test_a_damaged_sentencepiece_model_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(InputError, match=reason) as error:
        definition(tmp_path)
    assert one_line(error)


# Folders


def settings(folder: Path, **keys: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))


def encoded(folder: Path, text: str) -> list[str]:
    return Tokenizer.from_str(definition(folder) or "").encode(text).tokens


def test_the_first_form_of_a_tokenizer_is_taken(tmp_path: Path) -> None:
    assert definition(tmp_path) is None
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "B"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    assert encoded(tmp_path, "ab B") == ["[CLS]", "a", "##b", "B", "[SEP]"]
    settings(tmp_path, do_lower_case=True)
    assert encoded(tmp_path, "AB") == ["[CLS]", "a", "##b", "[SEP]"]
    settings(tmp_path, do_lower_case="yes")
    with pytest.raises(InputError, match="do_lower_case should be true or false"):
        definition(tmp_path)
    settings(tmp_path)
    (tmp_path / "spiece.model").write_bytes(PAIRS)
    assert encoded(tmp_path, "ab") == ["▁ab"]
    (tmp_path / "tokenizer.json").write_text(definition(tmp_path) or "")
    (tmp_path / "spiece.model").write_bytes(b"damaged")
    assert encoded(tmp_path, "ab") == ["▁ab"]


def test_settings_of_a_sentencepiece_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(PAIRS)
    settings(tmp_path, tokenizer_class="LlamaTokenizer")
    assert encoded(tmp_path, "ab") == ["<s>", "▁ab"]
    settings(tmp_path, tokenizer_class="LlamaTokenizerFast", add_bos_token=False, add_eos_token=True)
    assert encoded(tmp_path, "ab") == ["▁ab", "</s>"]
    more = {"267": {"content": "<pad>", "special": True}}
    settings(tmp_path, tokenizer_class="T5Tokenizer", extra_ids=2, added_tokens_decoder={"269": more["267"]})
    backend = Tokenizer.from_str(definition(tmp_path) or "")
    assert [backend.token_to_id(token) for token in ("<extra_id_1>", "<extra_id_0>", "<pad>")] == [267, 268, 269]
    assert encoded(tmp_path, "ab") == ["▁ab", "</s>"]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"tokenizer_class": "XLMRobertaTokenizer"}, "'XLMRoberta' numbers its tokens in a way of its own"),
        ({"added_tokens_decoder": {"999": {"content": "x"}}}, "'x' should be 999, but is 267"),
        ({"added_tokens_decoder": {"-1": {"content": "x"}}}, "tokens by their numbers"),
        ({"added_tokens_decoder": {"267": "x"}}, "a table with its content"),
        ({"add_bos_token": "yes"}, "true or false"),
        ({"add_bos_token": True, "bos_token": "<nosuch>"}, "<nosuch> is no token"),
        ({"tokenizer_class": "T5Tokenizer", "extra_ids": 10**9}, "up to 10000"),
    ],
)
def test_damaged_settings_are_refused(keys: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(PAIRS)
    settings(tmp_path, **keys)
    with pytest.raises(InputError, match=reason) as error:
        definition(tmp_path)
    assert one_line(error)


@pytest.mark.needs_shared
def test_gpt2s_own_lists(shared: Path, tmp_path: Path) -> None:
    backend = Tokenizer.from_str(definition(shared / "gpt2-tokenizer") or "")
    assert backend.encode("Hello world").ids == [15496, 995]
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(shared / "gpt2-tokenizer" / name)
    settings(tmp_path, add_prefix_space=True, add_bos_token=True, bos_token="<|endoftext|>")
    assert Tokenizer.from_str(definition(tmp_path) or "").encode("Hello").ids == [50256, 18435]
