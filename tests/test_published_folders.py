"""Published folders: what is wrong with one is said in a line, parts are swapped with what became of the weights told,
and what is written again is what was read."""

import json
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import anyformer as af
from anyformer.cli.main import main
from anyformer.core.errors import ConfigError, InputError
from anyformer.core.roles import AnyModel, Tokenizer
from anyformer.core.spec import from_dict
from anyformer.data.tokenizer import TextTokenizer
from anyformer.models.export import export_hf
from anyformer.models.published import open_published
from anyformer.models.surgery import Surgery, together

BLOCK = {
    "kind": "block",
    "mixer": {"kind": "softmax", "heads": 4, "kv_heads": 2, "position": "rotary"},
    "ff": {"kind": "gated", "hidden": 20},
    "residual": {"kind": "pre", "norm": "rms"},
}
MODEL = {
    "kind": "decoder",
    "vocabulary": 300,
    "width": 16,
    "context": 64,
    "body": {"kind": "stack", "blocks": [BLOCK] * 2, "norm": "rms"},
}


def tokenizer() -> TextTokenizer:
    bpe = {"kind": "bpe", "vocabulary": 290, "special": ["<pad>", "<s>", "</s>"]}
    made = from_dict(Tokenizer, bpe).train(["to be or not to be"], [])
    assert isinstance(made, TextTokenizer)
    return made


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as others publish theirs."""
    model = from_dict(AnyModel, MODEL).build(seed=1)
    model.tokenizer = tokenizer()
    folder = tmp_path_factory.mktemp("published") / "llama"
    assert export_hf(model, folder) == "llama"
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(published, tmp_path / "copy"))


def config(folder: Path, **changes: Any) -> None:
    tree = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in tree.items() if value != "gone"}))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")


def header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Another header before the same bytes."""
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tree = json.loads(data[8 : 8 + length])
    change(tree)
    text = json.dumps(tree).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def shards(folder: Path, names: dict[str, str] | None = None) -> None:
    """The weights in two files and an index; names: other names of files in the index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + at % 2}-of-00002.safetensors" for at, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    table = {name: (names or {}).get(file, file) for name, file in files.items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


FIRST = "model-00001-of-00002.safetensors"
NORM = "model.norm.weight"


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def listed_twice(folder: Path) -> None:
    shards(folder)
    path = folder / "model.safetensors.index.json"
    text = path.read_text().replace('"weight_map": {', f'"weight_map": {{"{NORM}": "{FIRST}", ')
    path.write_text(text)


def linked(folder: Path) -> None:
    shards(folder)
    outside = folder.parent / "outside.safetensors"
    (folder / FIRST).rename(outside)
    (folder / FIRST).symlink_to(outside)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (cut, "cut short"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "0 bytes long"),
    "a header of 2^60 bytes": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}"),
        "claims a header of 1152921504606846976 bytes",
    ),
    "overlapping": (
        lambda f: header(
            f, lambda h: h[NORM].update(data_offsets=[0, h[NORM]["data_offsets"][1] - h[NORM]["data_offsets"][0]])
        ),
        "overlaps",
    ),
    "out of range": (
        lambda f: header(f, lambda h: h[NORM].update(data_offsets=[2**40, 2**40 + 64])),
        "unused before it",
    ),
    "a shard missing": (lambda f: (shards(f), (f / FIRST).unlink()), "is listed and missing"),
    "a tensor listed twice": (listed_twice, "stands twice"),
    "a shard of another": (lambda f: (shards(f), save_file({"x": torch.ones(1)}, f / FIRST)), "do not belong together"),
    "a shard out of the folder": (lambda f: shards(f, {FIRST: "../../etc/passwd"}), "is no file of this folder"),
    "a shard by an absolute path": (lambda f: shards(f, {FIRST: "/etc/passwd"}), "is no file of this folder"),
    "a shard that is a link to elsewhere": (linked, "is no file of this folder"),
    "only pickles": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "are pickles, which are not opened",
    ),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
    "a wrong type": (lambda f: config(f, hidden_size="16"), "hidden_size should be a whole number from 1; came '16'"),
    "a flag as a size": (lambda f: config(f, num_attention_heads=True), "num_attention_heads should be"),
    "a negative size": (lambda f: config(f, intermediate_size=-20), "intermediate_size should be"),
    "a wild size": (lambda f: config(f, hidden_size=2**60), "hidden_size should be"),
    "wild layers": (lambda f: config(f, num_hidden_layers=2**23), "no model has more than 10000 layers"),
    "a missing key": (lambda f: config(f, num_attention_heads="gone"), "num_attention_heads is missing"),
    "an unknown key": (lambda f: config(f, hiden_act="relu"), r"nothing here reads 'hiden_act'; nearest: 'hidden_act'"),
    "an unknown activation": (lambda f: config(f, hidden_act="mish"), "hidden_act should be one of 'gelu'"),
    "an unknown type": (lambda f: config(f, model_type="lama"), "model_type 'lama' is not known.*nearest: 'llama'"),
    "no type": (lambda f: config(f, model_type="gone"), "model_type None is not known"),
    "another class": (lambda f: config(f, architectures=["LlamaForTokens"]), "architectures should be one of"),
    "heads that do not fit": (lambda f: config(f, num_attention_heads=5), "heads"),
    "an unknown scaling": (lambda f: config(f, rope_scaling={"type": "magic", "factor": 2.0}), "rope_type should be"),
    "an unknown key of a scaling": (
        lambda f: config(f, rope_scaling={"rope_type": "linear", "factor": 2.0, "power": 3}),
        "nothing here reads 'power'",
    ),
    "another width": (lambda f: config(f, hidden_size=32), r"embedding.weight is \(300, 16\), not \(300, 32\)"),
    "a layer too many": (lambda f: config(f, num_hidden_layers=3), "no tensor for body.blocks.2"),
    "a tensor too many": (lambda f: weights(f, lambda t: t.update(extra=torch.ones(2))), "no place for extra"),
    "tied and not": (
        lambda f: weights(f, lambda t: t.update({"lm_head.weight": torch.ones(300, 16)})),
        "the config ties lm_head.weight to embedding.weight, but the file has another",
    ),
    "dtypes that disagree": (
        lambda f: weights(f, lambda t: t.update({NORM: t[NORM].double()})),
        "the weights are float32 and float64",
    ),
    "whole numbers": (lambda f: weights(f, lambda t: t.update({n: x.int() for n, x in t.items()})), "floating-point"),
    "a tokenizer larger than the table": (
        lambda f: (
            config(f, vocab_size=200),
            weights(f, lambda t: t.update({"model.embed_tokens.weight": torch.ones(200, 16)})),
        ),
        "the model's table 200 rows",
    ),
    "a token's number that is none": (
        lambda f: (config(f, eos_token_id="</s>"), (f / "generation_config.json").unlink()),
        "eos_token_id should be a token's number",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line(fault: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(InputError, match=message):
        af.load(folder)
    assert main(["generate", str(folder), "a", "--tokens", "1"]) == 3
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "Traceback" not in printed.err


def test_not_a_number_is_told(folder: Path) -> None:
    weights(folder, lambda t: t[NORM].fill_(float("nan")))
    with pytest.warns(UserWarning, match="body.norm.weight has 16 values that are not finite"):
        af.load(folder)


def test_a_key_may_be_left_out_knowingly(folder: Path) -> None:
    config(folder, hiden_act="relu")
    assert af.load(folder, allow=["hiden_act"]).spec.width == 16


def test_what_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a run folder nor a published checkpoint"):
        af.load(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        af.load(tmp_path / "nothing")


@torch.no_grad()
def test_shards_are_the_same_model(published: Path, folder: Path) -> None:
    ids = torch.arange(12)[None]
    whole = af.load(published)(ids)
    shards(folder)
    assert torch.equal(af.load(folder)(ids), whole)


def test_weights_lie_on_the_pages_of_their_file(published: Path) -> None:
    """Nothing is copied, and what is written to does not reach the file."""
    before = (published / "model.safetensors").read_bytes()
    source = open_published(published)
    first, again = source.tensors[NORM], source.tensors[NORM]
    assert first.data_ptr() == again.data_ptr()
    model = af.load(published)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    assert (published / "model.safetensors").read_bytes() == before


@torch.no_grad()
def test_a_swapped_part_keeps_what_fits(published: Path) -> None:
    before = af.load(published)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a pattern has no weights: nothing to tell
        windowed = af.load(published, {"body.blocks.*.mixer.pattern": "causal & window(4)"})
    ids = torch.arange(12)[None]
    assert torch.equal(windowed(ids)[:, :4], before(ids)[:, :4]) and not torch.equal(windowed(ids), before(ids))
    with pytest.warns(UserWarning) as told:
        swapped = af.load(published, {"body.blocks.1.ff": {"kind": "mlp", "hidden": 20, "bias": False}})
    assert {str(one.message) for one in told} == {"dropped: body.blocks.1.ff.gate.weight"}
    assert torch.equal(
        swapped.get_parameter("body.blocks.1.ff.up.weight"), before.get_parameter("body.blocks.1.ff.up.weight")
    )


def test_surgery_tells_a_weight_of_another_shape_twice() -> None:
    surgery = Surgery.of({"a": torch.ones(2), "b": torch.ones(3)}, {"a": torch.ones(3), "b": torch.ones(3)})
    assert (surgery.kept, surgery.new, surgery.dropped) == (("b",), ("a",), ("a",))
    names = ["body.blocks.0.q", "body.blocks.1.q", "body.blocks.3.q", "norm"]
    assert together(names) == ["body.blocks.0-1,3.q", "norm"]


def test_the_report_comes_before_anything_runs(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change = "body.blocks.*.mixer.position=alibi"
    assert main(["generate", str(published), "a", "--set", change, "--surgery", "report"]) == 0
    assert capsys.readouterr().out.splitlines() == ["kept: all 20 weights"]
    change = "body.blocks.0.residual.norm=layer"
    assert main(["evaluate", str(published), "--set", change, "--surgery", "report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "kept: 20 weights",
        "new: body.blocks.0.residual.norm.ff.bias",
        "new: body.blocks.0.residual.norm.mixer.bias",
    ]


@torch.no_grad()
def test_there_and_back(published: Path, tmp_path: Path) -> None:
    """A published folder as a run, and that published again, is the same to the last bit."""
    run, again = tmp_path / "run", tmp_path / "again"
    assert main(["convert", str(published), str(run), "--to", "anyformer"]) == 0
    assert main(["convert", str(run), str(again), "--to", "hf"]) == 0
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):
        assert (again / name).read_bytes() == (published / name).read_bytes(), name


def test_what_cannot_be_said_there_is_named(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(published), str(tmp_path / "out"), "--set", "body.blocks.1.mixer.kind=linear"]
    assert main(words) == 2
    assert "body.blocks.1.mixer" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_folder_that_is_used_is_left_alone(published: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        export_hf(af.load(published), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_fine_tuning_begins_with_a_published_folder(published: Path, tmp_path: Path) -> None:
    """`model: {load: folder}` trains on, with its own tokenizer, and the run keeps what its special tokens are for."""
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 40)
    recipe = {
        "model": {"load": str(published)},
        "data": {"kind": "text", "path": str(tmp_path / "text.txt")},
        "training": {"batch": 2, "length": 16},
        "budget": {"steps": 3},
    }
    done = af.train(recipe, tmp_path / "run")
    before, after = af.load(published), af.load(done.path)
    moved = (after.get_parameter("embedding.weight") - before.get_parameter("embedding.weight")).abs().max()
    assert 0 < moved < 0.1
    assert isinstance(after.tokenizer, TextTokenizer) and isinstance(before.tokenizer, TextTokenizer)
    assert after.tokenizer.roles == before.tokenizer.roles


@pytest.mark.needs_shared
def test_a_real_story(shared: Path) -> None:
    """stories260K writes what its makers publish, letter for letter."""
    model = af.load(shared / "stories260K")
    text = af.generate(model, tokens=131, sampling=af.Sampling(greedy=True))
    assert text == (
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw "
        "a big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the "
        "park.\" Lily was sad and didn't know what to do. She said, \"I want to play with your ball, but I can't find "
        'it."'
    )
