"""Embeddings; word vectors from files, good and bad, and how a new model takes them."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.testing import assert_close

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel, Embedding
from anyformer.core.spec import Site, from_dict
from anyformer.data.tokenizer import TextTokenizer
from anyformer.data.vectors import align
from anyformer.models.given import fill_given

SAME = {"rtol": 0.0, "atol": 1e-12}
WORDS = ("the", "cat", "sat", "ön", "mat", "zebra")
VECTORS = {"the": (0.5, -1.25, 3e-2), "sat": (-0.125, 7.0, 2.5), "ön": (1.0, 0.0, -0.75), "dog": (9.0, 9.0, 9.0)}
GLOVE = "".join(f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in VECTORS.items())
WORD2VEC = "4 3\n" + GLOVE.replace("\n", " \n")  # the original tool ends its lines with a space


def binary(words: int = 4, width: int = 3, end: bytes = b"\n") -> bytes:
    body = [word.encode() + b" " + struct.pack("<3f", *numbers) + end for word, numbers in VECTORS.items()]
    return f"{words} {width}\n".encode() + b"".join(body)


def tokenizer(words: tuple[str, ...] = WORDS) -> TextTokenizer:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[-1]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextTokenizer(backend)


def written(folder: Path, content: str | bytes, name: str = "vectors.txt") -> str:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


def expected(words: tuple[str, ...] = WORDS) -> Tensor:
    """float32, as the files have it; a word without a vector has the mean of those that were found."""
    found = {word: np.array(VECTORS[word], dtype=np.float32) for word in words if word in VECTORS}
    mean = sum(vector.astype(np.float64) for vector in found.values()) / len(found)
    return torch.from_numpy(np.stack([found.get(word, mean).astype(np.float32) for word in words]))


# files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("glove.txt", GLOVE),
        ("glove.txt", "\ufeff" + GLOVE),
        ("glove.txt", GLOVE.replace("\n", "\r\n")),
        ("glove.txt", GLOVE + "the 8 8 8\n"),  # the first one counts
        ("glove.txt", GLOVE + ". . . 8 8 8\nat name@domain.com 8 8 8\n"),  # as in the largest GloVe file
        ("word2vec.txt", WORD2VEC),
        ("word2vec.vec", WORD2VEC.rstrip("\n")),
        ("word2vec.bin", binary()),
        ("word2vec.bin", binary(end=b"")),
    ],
)
def test_every_word_takes_its_vector(tmp_path: Path, name: str, content: str | bytes) -> None:
    vectors, missing = align(written(tmp_path, content, name), tokenizer())
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, expected())
    assert missing == ["cat", "mat", "zebra"]


def test_a_token_with_its_space_is_a_word(tmp_path: Path) -> None:
    """Byte-level tokens hold the space before a word; bytes that are a part of a letter are no word."""
    backend = Tokenizer(models.BPE({"Ġcat": 0, "cat": 1, "Ã": 2, "Ġ": 3, "s": 4}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    vectors, missing = align(written(tmp_path, "cat 1 2\ns 3 4\nĠcat 9 9\n"), TextTokenizer(backend))
    assert vectors.tolist() == [[1, 2], [1, 2], [2, 3], [2, 3], [3, 4]]
    assert len(missing) == 2


def test_files_are_found_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GLOVE, "glove.txt")
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    assert torch.equal(align("glove.txt", tokenizer())[0], expected())
    with pytest.raises(InputError, match=r"no other\.txt nor .*other\.txt: .*--set model\.embedding\.vectors="):
        align("other.txt", tokenizer())
    with pytest.raises(InputError, match=r"is a folder: name the file of word vectors in it"):
        align(str(tmp_path), tokenizer())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "", r"a\.txt holds no word vectors: it is empty"),
        ("a.bin", b"", r"a\.bin holds no word vectors: it is empty"),
        ("a.txt", "4 3\n", r"a\.txt holds no word vectors"),
        ("a.txt", "the 1 2 3\nsat 1 2\n", r"line 2 is not a word and 3 numbers"),
        ("a.txt", "the 1 2 3\nsat 1 2 3 4\n", r"line 2 is not a word and 3 numbers"),
        ("a.txt", "the 1 2 3\n\nsat 1 2 3\n", r"line 2 is not a word and 3 numbers"),
        ("a.txt", "the 1 2 3\n 1 2 3\n", r"line 2 is not a word and 3 numbers"),
        ("a.txt", "the\nsat\n", r"line 1 is not a word and its numbers"),
        ("a.txt", "2 5\nthe 1 2 3\nsat 1 2 3\n", r"line 2 is not a word and 5 numbers"),
        ("a.txt", "3 3\nthe 1 2 3\nsat 1 2 3\n", r"line 1 says 3 words, but there are 2: the file is damaged"),
        ("a.txt", "1 3\nthe 1 2 3\nsat 1 2 3\n", r"line 1 says 1 words, but there are 2"),
        ("a.txt", "the 1 2 3\nsat 1 two 3\n", r"line 2: could not convert string to float: 'two'"),
        ("a.txt", "the 1 2 3\nsat 1 nan 3\n", r"line 2: the vector of 'sat' has a number that is infinite or not"),
        ("a.txt", "the 1 2 3\nsat 1 1e99 3\n", r"line 2: the vector of 'sat' has a number that is infinite"),
        ("a.txt", b"the 1 2 3\ns\xff 1 2 3\n", r"line 2.*no UTF-8"),
        ("a.txt", binary(), r"line 2"),
        ("a.txt", "dog 1 2 3\n", r"a\.txt has a vector for none of the tokenizer's 6 tokens"),
        ("a.bin", GLOVE, r"line 1 does not say how many words there are and how wide: is it text, not \.bin\?"),
        (
            "a.bin",
            binary(words=5),
            r"word 5 of 5 is not a word and 3 numbers: the file, or what line 1 says, is damaged",
        ),
        ("a.bin", binary(words=3), r"line 1 says 3 words of 3 numbers, but there is more"),
        ("a.bin", binary(width=4), r"is not a word and 4 numbers|but there is more"),
        ("a.bin", binary(width=0), r"line 1 does not say"),
        ("a.bin", binary(width=999_999_999_999), r"word 1 of 4 is not a word and 999999999999 numbers"),
        ("a.bin", binary()[:-5], r"word 4 of 4 is not a word and 3 numbers"),
        ("a.bin", binary().replace(b"sat", b"s\xfft"), r"word 2 of 4 is not a word"),
        ("a.bin", binary().replace(struct.pack("<f", 7.0), struct.pack("<f", float("inf"))), r"word 2 of 4.*infinite"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        align(written(tmp_path, content, name), tokenizer())
    assert "\n" not in str(error.value) and name in str(error.value)


# models


def declared(embedding: dict[str, Any], width: int = 3, **fields: Any) -> dict[str, Any]:
    body = {"kind": "stack", "blocks": [{"kind": "block", "mixer": {"kind": "softmax", "heads": 1}}]}
    tree = {"kind": "decoder", "width": width, "vocabulary": len(WORDS), "body": body, "embedding": embedding}
    return {**tree, **fields}


def build(embedding: dict[str, Any], width: int = 3, **fields: Any) -> Model:
    return from_dict(AnyModel, declared(embedding, width, **fields)).build()


def given(file: str | None, **fields: Any) -> dict[str, Any]:
    return {"kind": "given", "vectors": file, **fields}


def test_a_new_model_takes_its_vectors(tmp_path: Path) -> None:
    file = written(tmp_path, GLOVE)
    model = build(given(file, scale=2.0))
    note = fill_given(model, tokenizer())
    assert (
        note == f"{file} has no vector for 3 of 6 tokens ('cat', 'mat', 'zebra'), which begin as the mean of the others"
    )
    assert torch.equal(model.get_parameter("embedding.weight"), expected())
    ids = torch.tensor([[2, 0, 5]])
    assert torch.equal(model.get_submodule("embedding")(ids), 2 * expected()[ids])


def test_nothing_is_said_where_nothing_is_missing_or_given(tmp_path: Path) -> None:
    words = ("the", "sat", "ön", "dog")
    model = build(given(written(tmp_path, GLOVE)), vocabulary=4)
    assert fill_given(model, tokenizer(words)) is None
    assert torch.equal(model.get_parameter("embedding.weight"), expected(words))
    for embedding in (given(None), {"kind": "tokens"}):
        model = build(embedding)
        before = model.get_parameter("embedding.weight").clone()
        assert fill_given(model, tokenizer()) is None
        assert torch.equal(model.get_parameter("embedding.weight"), before)


def test_ids_beyond_the_tokenizers_keep_what_they_began_as(tmp_path: Path) -> None:
    model = build(given(written(tmp_path, GLOVE)), vocabulary=8)
    before = model.get_parameter("embedding.weight")[6:].clone()
    fill_given(model, tokenizer())
    weight = model.get_parameter("embedding.weight")
    assert torch.equal(weight[:6], expected()) and torch.equal(weight[6:], before)


@pytest.mark.parametrize("trainable", [True, False])
def test_only_what_is_trainable_is_trained(tmp_path: Path, trainable: bool) -> None:
    """A frozen table stays as it is, also where the head reads it backwards."""
    model = build(given(written(tmp_path, GLOVE), trainable=trainable))
    fill_given(model, tokenizer())
    ids = torch.tensor([[0, 2, 3, 1]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.loss(ids, ids).backward()
    optimizer.step()
    assert torch.equal(model.get_parameter("embedding.weight"), expected()) != trainable


def test_a_model_needs_the_file_no_more(tmp_path: Path) -> None:
    file = written(tmp_path, GLOVE)
    model = build(given(file))
    fill_given(model, tokenizer())
    Path(file).unlink()
    again = from_dict(AnyModel, model.spec.to_dict()).build()
    again.load_state_dict(model.state_dict())
    assert not again.get_parameter("embedding.weight").requires_grad
    ids = torch.tensor([[0, 2, 3, 1]])
    assert torch.equal(again(ids), model(ids))


def test_vectors_of_another_width_are_refused_with_the_way_out(tmp_path: Path) -> None:
    file = written(tmp_path, GLOVE)
    says = (
        r"model\.embedding: the vectors in .* have 3 numbers, the embedding 4: .*\{kind: factorised, size: 3, inner: "
    )
    with pytest.raises(ConfigError, match=says):
        fill_given(build(given(file), width=4), tokenizer())
    model = build({"kind": "factorised", "size": 3, "inner": given(file)}, width=4)
    fill_given(model, tokenizer())
    assert torch.equal(model.get_parameter("embedding.inner.weight"), expected())


def test_each_side_has_words_of_its_own(tmp_path: Path) -> None:
    full, causal = ({"kind": "softmax", "heads": 1, "pattern": pattern} for pattern in ("full", "causal"))
    reader = {"kind": "block", "mixer": causal, "cross": {"kind": "cross", "heads": 1}}
    sides = {"encoder": {"kind": "stack", "blocks": [{"kind": "block", "mixer": full}]}}
    sides["decoder"] = {"kind": "stack", "blocks": [reader]}
    file, words = written(tmp_path, GLOVE), ("dog", "the")
    tree = {**declared(given(file)), "kind": "encoder_decoder", "source_vocabulary": 2, **sides}
    del tree["body"]
    model = from_dict(AnyModel, {**tree, "source_embedding": given(file)}).build()
    fill_given(model, tokenizer(), tokenizer(words))
    assert torch.equal(model.get_parameter("embedding.weight"), expected())
    assert torch.equal(model.get_parameter("source_embedding.weight"), expected(words))


def test_factorised_is_a_product_both_ways() -> None:
    """Into the stream, and for the head that reads it backwards (Lan et al. 2020)."""
    model = build({"kind": "factorised", "size": 5, "inner": {"kind": "tokens", "scale": 3.0}}, width=8).double()
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.normal_(std=0.5, generator=torch.Generator().manual_seed(number))
    narrow, up = (model.get_parameter(f"embedding.{name}.weight") for name in ("inner", "up"))
    assert (narrow.shape, up.shape) == ((6, 5), (8, 5))
    ids, h = torch.tensor([[2, 0, 5]]), torch.randn(1, 3, 8, dtype=torch.float64)
    want = torch.stack([3 * up @ narrow[token] for token in ids[0].tolist()])[None]
    assert_close(model.get_submodule("embedding")(ids), want, **SAME)
    head: Any = model.head
    assert_close(head.logits(h), torch.einsum("btc,ce,ve->btv", h, up, narrow), **SAME)


def test_whole_tokens_are_left_out_in_training_alone() -> None:
    spec = {"kind": "tokens", "token_dropout": 0.3, "std": 1.0}
    table = from_dict(Embedding, spec).build(Site("embedding", 6, vocabulary=11))
    nn.init.normal_(table.weight)
    ids = torch.randint(11, (40, 50), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    out = table.train()(ids)
    gone = (out == 0).all(-1)
    assert abs(float(gone.float().mean()) - 0.3) < 0.04
    assert torch.equal(out[~gone], table.weight[ids][~gone])
    assert torch.equal(table.eval()(ids), table.weight[ids])
