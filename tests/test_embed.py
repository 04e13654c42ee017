"""`embed`: vectors beside the reference library's, alone and among others; folders of sentence-transformers."""

import io
import json
import re
import shlex
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.published import exact, redrawn
from safetensors.torch import load_file, save_file
from test_predict import run_of
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F

import anyformer as af
from anyformer.checkpoints.pickles import BIN
from anyformer.cli.main import main
from anyformer.core.errors import InputError, NumericalStop
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.training.embed import TOKENS, Embedder, batches

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "how", "dogs", "run", "in", "rain"]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
TEXTS = [" ".join(WORDS[at % 5 : at % 5 + 1 + (7 * at) % 9]) for at in range(23)]
LONG = " ".join(WORDS * 3)
CLOSE: Any = {"rtol": 0, "atol": 1e-12}
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", {"max_position_embeddings": 20}),
    "mpnet": ("MPNetModel", {"max_position_embeddings": 22}),
    "llama": ("LlamaModel", {"max_position_embeddings": 20, "num_key_value_heads": 1, "pad_token_id": None}),
    "t5": ("T5Model", {"d_model": 24, "d_kv": 8, "d_ff": 20, "num_heads": 3, "num_layers": 2, "pad_token_id": 0}),
}


def tokenizer() -> Tokenizer:
    """Words, with a token before and after each text."""
    vocabulary = {word: at for at, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.add_special_tokens(list(SPECIAL))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in SPECIAL[2:]]
    )
    return made


def reference(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    kind, more = TINY[name]
    sizes = {} if name == "t5" else SIZES
    config = transformers.AutoConfig.for_model(name, vocab_size=40, **sizes, **more)
    config._attn_implementation = "eager"
    with exact():
        return redrawn(getattr(transformers, kind)(config))


def folder_of(name: str, path: Path) -> tuple[Path, Any]:
    """A published folder, and the model of the reference library that wrote it."""
    model = reference(name)
    model.save_pretrained(path)
    tokenizer().save(str(path / "tokenizer.json"))
    return path, model


def sentences(folder: Path, modules: Sequence[str], pooling: dict[str, Any], **settings: Any) -> Path:
    """The same with what sentence-transformers adds."""
    paths = ["" if name == "Transformer" else f"{at}_{name}" for at, name in enumerate(modules)]
    listed = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(zip(modules, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **pooling}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": False, **settings}))
    return folder


def dense(folder: Path, at: int, size: int, bias: bool, activation: str) -> dict[str, Tensor]:
    path = folder / f"{at}_Dense"
    path.mkdir()
    said = {
        "in_features": 24,
        "out_features": size,
        "bias": bias,
        "activation_function": f"torch.nn.modules.{activation}",
    }
    (path / "config.json").write_text(json.dumps(said))
    chance = torch.Generator().manual_seed(at)
    shapes = {"linear.weight": (size, 24), **({"linear.bias": (size,)} if bias else {})}
    tensors = {name: torch.randn(shape, generator=chance, dtype=torch.float64) for name, shape in shapes.items()}
    save_file(tensors, path / "model.safetensors")
    return tensors


@torch.no_grad()
def streams(model: Any, texts: Sequence[str]) -> list[Tensor]:
    """(T, C) of each text, alone."""
    made = tokenizer()
    with exact():
        read = getattr(model, "encoder", model) if model.config.is_encoder_decoder else model
        return [read(input_ids=torch.tensor([made.encode(text).ids])).last_hidden_state[0] for text in texts]


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "first": lambda h: h[0],
    "mean": lambda h: h.mean(0),
    "last": lambda h: h[-1],
    "max": lambda h: h.amax(0),
}


@pytest.mark.parametrize("name", TINY)
def test_vectors_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    folder, theirs = folder_of(name, tmp_path / name)
    model = af.load(folder)
    found = streams(theirs, TEXTS)
    for pool, pooled in POOLS.items():
        wanted = torch.stack([pooled(h) for h in found])
        ours = af.embed(model, TEXTS, pool=pool)
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            af.embed(model, TEXTS, pool=pool, normalize=True), F.normalize(wanted, dim=-1), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("name", TINY)
def test_a_vector_does_not_depend_on_its_neighbours(name: str, tmp_path: Path) -> None:
    """Nor on which texts are read with it, since they are many more than are read at a time."""
    model = af.load(folder_of(name, tmp_path / name)[0])
    many = TEXTS * 100
    assert len(many) > 2048
    together = af.embed(model, many, pool="mean")
    alone = torch.cat([af.embed(model, [text], pool="mean") for text in TEXTS])
    torch.testing.assert_close(together, alone.repeat(100, 1), **CLOSE)
    assert together.isfinite().all() and together[0].ne(together[1]).any()


def test_texts_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    """Of an endless file, no more than is held at a time."""
    model = af.load(folder_of("bert", tmp_path / "bert")[0])
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield "the cat"

    found = Embedder.of(model).vectors(endless())
    next(found)
    assert 0 < read < 5000


def test_a_batch_is_bounded() -> None:
    lengths = sorted([*range(1, 300), TOKENS * 3, 5, 5])
    made = list(batches([(at, [0] * length) for at, length in enumerate(lengths)]))
    assert [at for batch in made for at, _ in batch] == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(len(ids) for _, ids in batch) <= TOKENS for batch in made)
    assert len(made) < 12
    assert list(batches([])) == []


def test_what_is_longer_is_cut_and_told(tmp_path: Path) -> None:
    folder, theirs = folder_of("bert", tmp_path / "bert")
    model = af.load(folder)
    assert len(tokenizer().encode(LONG).ids) > 20
    with pytest.warns(UserWarning, match="1 text is longer than 20 tokens: the rest is not read"):
        ours = af.embed(model, [LONG, "the cat"], pool="last")
    cut = " ".join(LONG.split()[:18])  # and what stands around it
    torch.testing.assert_close(ours[0], streams(theirs, [cut])[0][-1], rtol=1e-9, atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        af.embed(model, [cut], pool="last")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    model = af.load(folder_of("bert", tmp_path / "bert")[0])
    assert af.embed(model, []).shape == (0, 0)
    assert af.embed(model, [""]).shape == (1, 24), "the tokens around it"
    with pytest.raises(ValueError, match="put it in a list"):
        af.embed(model, "the cat")
    with pytest.raises(InputError, match="text 2: "):
        af.embed(model, ["the cat", "\ud800"])
    model.tokenizer = None
    with pytest.raises(InputError, match="this model reads no text"):
        af.embed(model, ["the cat"])


def test_a_head_without_a_way_of_its_own_is_passed_over(tmp_path: Path) -> None:
    folder, theirs = folder_of("bert", tmp_path / "bert")
    with pytest.warns(UserWarning):
        model = af.load(folder, {"head": {"kind": "classify", "labels": ["a", "b"]}})
    wanted = streams(theirs, ["the cat sat"])[0].mean(0)
    torch.testing.assert_close(af.embed(model, ["the cat sat"])[0], wanted, rtol=1e-9, atol=1e-9)


def test_a_bare_bert_has_its_pooler(tmp_path: Path) -> None:
    folder, theirs = folder_of("bert", tmp_path / "bert")
    ids = torch.tensor([tokenizer().encode("the cat sat").ids])
    with torch.no_grad(), exact():
        wanted = theirs(input_ids=ids).pooler_output
    torch.testing.assert_close(af.embed(af.load(folder), ["the cat sat"]), wanted, rtol=1e-9, atol=1e-9)


def test_a_run_reads_as_it_was_trained(tmp_path: Path) -> None:
    run = run_of("contrastive", tmp_path)
    wanted = [answer["vector"] for answer in af.predict(run, TEXTS)]
    torch.testing.assert_close(af.embed(af.load(run), TEXTS), torch.tensor(wanted), rtol=0, atol=1e-6)


# Folders of sentence-transformers

MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_mean_sqrt_len_tokens": False}


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        (MEAN, "mean"),
        ({"pooling_mode_cls_token": True, "include_prompt": True}, "first"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_sentence_encoder_is_read(name: str, unit: bool, pooling: dict[str, Any], pool: str, tmp_path: Path) -> None:
    folder, theirs = folder_of(name, tmp_path / name)
    sentences(folder, ["Transformer", "Pooling", "Normalize"][: 2 + unit], pooling, max_seq_length=11)
    model = af.load(folder)
    wanted = torch.stack([POOLS[pool](h) for h in streams(theirs, TEXTS[:3])])
    torch.testing.assert_close(
        af.embed(model, TEXTS[:3]), F.normalize(wanted, dim=-1) if unit else wanted, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(af.embed(model, TEXTS[:3], normalize=False), wanted, rtol=1e-9, atol=1e-9)
    with pytest.warns(UserWarning, match="1 text is longer than 11 tokens"):
        af.embed(model, [LONG])


@pytest.mark.parametrize("maps", ["Dense tanh", "Dense", "both"])
def test_linear_maps_after_the_pooling(maps: str, tmp_path: Path) -> None:
    folder, theirs = folder_of("bert", tmp_path / "bert")
    count = 2 if maps == "both" else 1
    sentences(folder, ["Transformer", "Pooling", *["Dense"] * count, "Normalize"], MEAN)
    wanted = torch.stack([h.mean(0) for h in streams(theirs, TEXTS)])
    if maps != "Dense":
        map = dense(folder, 2, 24, True, "activation.Tanh")
        wanted = torch.tanh(wanted @ map["linear.weight"].T + map["linear.bias"])
    if maps != "Dense tanh":
        wanted = wanted @ dense(folder, 1 + count, 9, False, "linear.Identity")["linear.weight"].T
    ours = af.embed(af.load(folder), TEXTS)
    torch.testing.assert_close(ours, F.normalize(wanted, dim=-1), rtol=1e-9, atol=1e-9)


def test_pickled_modules_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = folder_of("bert", tmp_path / "bert")
    sentences(folder, ["Transformer", "Pooling", "Dense"], MEAN, max_seq_length=11)
    dense(folder, 2, 9, True, "linear.Identity")
    wanted = af.embed(af.load(folder), TEXTS[:2])
    for weights in (folder / "model.safetensors", folder / "2_Dense" / "model.safetensors"):
        torch.save(load_file(weights), weights.with_name(BIN))
        weights.unlink()
    with pytest.raises(InputError, match="its weights are pickles"):
        af.load(folder)
    assert main(["convert", str(folder), str(tmp_path / "run"), "--to", "anyformer"]) == 0
    model = af.load(tmp_path / "run")
    assert model.spec.to_dict()["context"] == 11
    torch.testing.assert_close(af.embed(model, TEXTS[:2]), wanted, **CLOSE)
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "hf"), "--to", "hf"]) == 2
    assert "no published model type says this declaration" in capsys.readouterr().err


def spoiled(file: str, **changes: Any) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        tree = json.loads((folder / file).read_text())
        (tree[1] if isinstance(tree, list) else tree).update(changes)
        (folder / file).write_text(json.dumps(tree))

    return spoil


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a module of one's own": (spoiled("modules.json", type="mine.Pool"), "the module 'mine.Pool' is not known; known:"),
    "another module": (spoiled("modules.json", type="sentence_transformers.models.LSTM"), "LSTM' is not known"),
    "a way out": (spoiled("modules.json", path="../../etc"), "is no folder of this one"),
    "an order": (
        spoiled("modules.json", type="sentence_transformers.models.Normalize"),
        "lists Transformer, Normalize",
    ),
    "a key of a module": (spoiled("modules.json", kwargs=[]), "should be a list of modules"),
    "no list": (lambda f: (f / "modules.json").write_text("7"), "should be a list of modules"),
    "two ways": (spoiled("1_Pooling/config.json", pooling_mode_cls_token=True), "one way to pool; came first and mean"),
    "no way": (spoiled("1_Pooling/config.json", pooling_mode_mean_tokens=False), "one way to pool; came none"),
    "an odd way": (
        spoiled("1_Pooling/config.json", pooling_mode_weightedmean_tokens=True),
        "pooling_mode_weightedmean_tokens should be",
    ),
    "an unknown key": (spoiled("1_Pooling/config.json", pool_twice=True), "nothing here reads 'pool_twice'"),
    "another width": (spoiled("1_Pooling/config.json", word_embedding_dimension=99), "word_embedding_dimension should"),
    "lower case": (spoiled("sentence_bert_config.json", do_lower_case=True), "do_lower_case should be"),
    "a wild length": (spoiled("sentence_bert_config.json", max_seq_length=-1), "max_seq_length should be"),
    "a missing folder": (lambda f: shutil.rmtree(f / "1_Pooling"), "1_Pooling/config.json: cannot be read"),
    "a prompt": (
        lambda f: (f / "config_sentence_transformers.json").write_text('{"default_prompt_name": "query"}'),
        "puts the prompt 'query' before every text, which is not done here; add --allow default_prompt_name",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message = FAULTS[fault]
    folder = sentences(folder_of("bert", tmp_path / "bert")[0], ["Transformer", "Pooling"], MEAN, max_seq_length=9)
    spoil(folder)
    (tmp_path / "one.txt").write_text("the cat\n")
    capsys.readouterr()
    assert main(["embed", str(folder), str(tmp_path / "one.txt")]) == 3
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and message in printed.err


@pytest.mark.parametrize(
    ("size", "bias", "activation", "message"),
    [
        (24, True, "activation.ReLU", "activation_function should be"),
        (9, True, "activation.Tanh", "Dense is 24 to 9, tanh"),
        (24, False, "activation.Tanh", "Dense is 24 to 24, tanh"),
    ],
)
def test_a_map_that_the_head_has_not_is_named(
    size: int, bias: bool, activation: str, message: str, tmp_path: Path
) -> None:
    folder = sentences(folder_of("bert", tmp_path / "bert")[0], ["Transformer", "Pooling", "Dense"], MEAN)
    dense(folder, 2, size, bias, activation)
    with pytest.raises(InputError, match=message):
        af.load(folder)


# The verb


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = folder_of("bert", tmp_path_factory.mktemp("encoder") / "bert")[0]
    return sentences(folder, ["Transformer", "Pooling"], MEAN)


def spoken(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[Any], str]:
    code = main(["embed", *map(str, words)])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_lines_are_answered_in_order(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = af.embed(af.load(encoder), TEXTS)
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    code, found, err = spoken(capsys, encoder, file)
    assert code == 0 and err == ""
    torch.testing.assert_close(torch.tensor([line["vector"] for line in found], dtype=torch.float64), wanted, **CLOSE)
    file.with_suffix(".jsonl").write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS))
    assert spoken(capsys, encoder, file.with_suffix(".jsonl"))[1] == found
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXTS[3].encode())))
    assert spoken(capsys, encoder, "-")[1] == [{"vector": pytest.approx(found[3]["vector"], abs=1e-12)}], (
        "one line without an end"
    )


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_one_array_with_a_row_for_each_line(
    suffix: str, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [b"", *(text.encode() for text in TEXTS), b"bad \xff", b" "]
    (tmp_path / "lines.txt").write_bytes(b"\n".join(lines))
    out = tmp_path / "made" / f"vectors.{suffix}"
    code, found, err = spoken(capsys, encoder, tmp_path / "lines.txt", "--out", out, "--normalize", "--json")
    assert code == 3
    assert found == [{"path": str(out), "rows": len(lines), "width": 24}]
    assert err.splitlines() == [
        f"warning: {tmp_path}/lines.txt, line 1: is empty",
        f"warning: {tmp_path}/lines.txt, line 25: is no UTF-8 after 4 characters",
        f"warning: {tmp_path}/lines.txt, line 26: is empty",
        "3 lines could not be read",
    ]
    rows = np.load(out) if suffix == "npy" else load_file(out)["vectors"].numpy()
    assert rows.dtype == np.float64 and rows.shape == (26, 24)
    assert np.isnan(rows[[0, 24, 25]]).all()
    wanted = af.embed(af.load(encoder), TEXTS, normalize=True).numpy()
    np.testing.assert_allclose(rows[1:24], wanted, rtol=0, atol=1e-12)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.filterwarnings("default:.* not finite")
def test_what_cannot_be_done_writes_nothing(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "one.txt").write_text("the cat\n")
    code, _, err = spoken(capsys, encoder, tmp_path / "one.txt", "--out", tmp_path / "vectors.csv")
    assert code == 2 and ".npy or .safetensors" in err
    code, _, err = spoken(capsys, encoder, tmp_path / "empty.txt", "--out", tmp_path / "vectors.npy")
    assert code == 3 and "no line could be read" in err
    copy = Path(shutil.copytree(encoder, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    tensors["encoder.layer.1.output.dense.bias"].fill_(float("nan"))
    save_file(tensors, copy / "model.safetensors")
    for more in ([], ["--out", tmp_path / "vectors.npy"]):
        code, found, err = spoken(capsys, copy, tmp_path / "one.txt", *more)
        assert code == NumericalStop.exit_code and found == []
        assert "line 1: the vector is no number" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "empty.txt", "one.txt"]


def test_an_image_model_reads_no_text() -> None:
    image = {"kind": "patches", "size": 4, "image": 8}
    block = {"kind": "block", "mixer": {"kind": "softmax", "heads": 2, "pattern": "full"}, "ff": "mlp"}
    body = {"kind": "stack", "blocks": [block]}
    model = from_dict(AnyModel, {"kind": "encoder", "width": 8, "embedding": image, "body": body}).build()
    assert isinstance(model, Model)
    with pytest.raises(InputError, match="this model reads no text"):
        af.embed(model, ["the cat"])


@pytest.mark.needs_shared
@pytest.mark.usefixtures("beside_stories")
def test_the_commands_of_the_page_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.txt").write_text("Lily has a dog.\nTim sleeps.\n")
    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text("utf-8")
    section = page.partition("## Sentence vectors")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ anyformer (.*)\n((?:(?!\$|```).*\n)*)", section, re.MULTILINE)
    assert len(commands) == 2
    for command, shown in commands:
        assert main(shlex.split(command)) == 0, command
        printed = capsys.readouterr().out
        assert not shown or printed == shown, command
    rows = torch.from_numpy(np.load("vectors.npy"))
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(2))
    assert [len(json.loads(line)["vector"]) for line in printed.splitlines()] == [64, 64]
