"""Tokenizers: every text comes back as it was, whole, in pieces and token by token; what is no text is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from anyformer.core.errors import InputError
from anyformer.core.roles import Tokenizer as TokenizerRole
from anyformer.core.spec import from_dict
from anyformer.data.guard import guarded
from anyformer.data.pieces import pieces
from anyformer.data.tokenizer import TextTokenizer
from anyformer.data.tokenizers.bpe import Bpe
from anyformer.data.tokenizers.bytes import Bytes
from anyformer.data.tokenizers.characters import Characters

TEXT = "Once upon a time, there was a naïve café. 你好, 😀! It's 1234.\r\n\n  Once more\tupon a time.\x00 " * 3
BYTES = Bytes().train([], [])
BPE = Bpe(vocabulary=300).train([TEXT], [])
CHARACTERS = Characters().train([TEXT], [])
KNOWN = st.text(st.sampled_from(sorted(set(TEXT))))
ANY = st.text(st.characters(exclude_categories=["Cs"]))  # all of Unicode; Cs: halves of surrogate pairs


def sentencepiece() -> TextTokenizer:
    """A tokenizer that puts a space before the text and strips it again, as Llama's does."""
    words = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "\ufffd", ""]
    merges = [("▁", "a"), ("a", "b")]
    model = models.BPE({word: at for at, word in enumerate(words)}, merges, unk_token="<unk>")
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return TextTokenizer.read(backend.to_str())


@given(ANY)
@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
def test_any_text_comes_back(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(KNOWN)
def test_known_characters_come_back(text: str) -> None:
    assert CHARACTERS.decode(CHARACTERS.encode(text)) == text


@given(ANY)
def test_bytes_are_utf8(text: str) -> None:
    assert BYTES.encode(text) == list(text.encode())


@pytest.mark.parametrize(("tokenizer", "texts"), [(BYTES, ANY), (CHARACTERS, KNOWN)], ids=["bytes", "characters"])
def test_the_fast_form_agrees_with_the_library(tokenizer: TextTokenizer, texts: st.SearchStrategy[str]) -> None:
    assert tokenizer._lookup is not None

    @given(texts)
    def agree(text: str) -> None:
        assert tokenizer.encode(text) == tokenizer.plain.encode(text).ids

    agree()


@given(st.lists(ANY), st.integers(1, 8))
@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
def test_no_text_is_lost_between_pieces(tokenizer: TextTokenizer, documents: list[str], size: int) -> None:
    found: list[list[int]] = [[] for _ in documents]
    for number, ids in tokenizer.encode_documents(documents, size):
        found[number] += ids.tolist()
    assert [tokenizer.decode(ids) for ids in found] == documents


WHITE = st.text(st.sampled_from(" \n\t\x1c\x85"), max_size=4)
WORDS = st.sampled_from(["a", "it's", "9", "!?", "é", "<|", "你好"])
CHUNKS = st.lists(st.builds("{}{} x".format, WHITE, WORDS)).map("".join)  # " x": somewhere to cut, every 10 characters


@given(CHUNKS, st.integers(10, 20))
@example("a x9876543\n \n x", 10)
def test_pieces_split_into_the_same_words(text: str, size: int) -> None:
    cut = list(pieces(text, size))
    assert "".join(cut) == text
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    assert [word for piece in cut for word, _ in split(piece)] == [word for word, _ in split(text)]


def test_long_texts_are_cut_between_words() -> None:
    cut = list(pieces("word " * 1000, 100))
    assert len(cut) > 40
    assert max(map(len, cut)) <= 200
    assert all(piece.startswith(" word") for piece in cut[1:])


def test_a_tokenizer_that_looks_further_gets_texts_whole() -> None:
    tokenizer, text = sentencepiece(), "ab a b ab"
    parts = list(tokenizer.encode_documents([text], 2))
    assert [ids.tolist() for _, ids in parts] == [tokenizer.encode(text)]


@given(st.lists(st.integers(0, 255)))
def test_streams_hold_back_half_characters(ids: list[int]) -> None:
    stream = BYTES.stream()
    given_out = [stream.push(token) for token in ids]
    assert "".join(given_out) + stream.flush() == BYTES.decode(ids)


def test_a_stream_says_a_character_when_it_is_whole() -> None:
    stream = BYTES.stream()
    assert [stream.push(token) for token in "é😀".encode()] == ["", "é", "", "", "", "😀"]
    assert stream.push(0xF0) == ""
    assert stream.flush() == "\ufffd"


@given(st.lists(st.integers(0, 9)))
@example([4, 9, 6])  # a token without text does not make the next one the first
def test_streams_of_other_vocabularies(ids: list[int]) -> None:
    tokenizer = sentencepiece()
    stream = tokenizer.stream()
    assert "".join(stream.push(token) for token in ids) + stream.flush() == tokenizer.decode(ids)


def test_streams_of_vocabularies_that_fall_back_to_bytes() -> None:
    words = ["a", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = TextTokenizer(backend)
    stream = tokenizer.stream()
    assert [stream.push(token) for token in tokenizer.encode("你a😀")] == ["", "", "你", "a", "", "", "", "😀"]


def test_special_tokens_from_a_user_are_text() -> None:
    text = "a<|endoftext|>b"
    assert BPE.begin == BPE.end == 0
    assert BPE.begin not in BPE.encode(text)
    assert BPE.decode(BPE.encode(text)) == text
    ids = BPE.encode(text, special=True)
    assert ids.count(0) == 1
    assert BPE.decode(ids) == "ab"
    assert BPE.decode(ids, special=True) == text
    assert BPE.stream().push(0) == ""
    assert BPE.stream(special=True).push(0) == "<|endoftext|>"
    assert BPE.begin not in BPE.encode(text)  # asking once changes nothing


@pytest.mark.parametrize("tokenizer", [BYTES, BPE, CHARACTERS], ids=["bytes", "bpe", "characters"])
def test_saved_and_loaded(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.begin, again.end, again.pad) == (tokenizer.begin, tokenizer.end, tokenizer.pad)
    assert again.vocabulary == tokenizer.vocabulary
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(TEXT).ids == tokenizer.encode(TEXT)


def test_usual_names_of_special_tokens() -> None:
    tokenizer = sentencepiece()
    assert (tokenizer.begin, tokenizer.end, tokenizer.pad) == (1, 2, None)
    assert (BYTES.begin, BYTES.end, BYTES.pad, BYTES.vocabulary) == (None, None, None, 256)


def test_a_tokenizer_without_the_named_token() -> None:
    with pytest.raises(InputError, match="no token '<s>'"):
        TextTokenizer(Tokenizer.from_str(BYTES.definition), begin="<s>")


def test_characters_refuse_what_they_do_not_know() -> None:
    with pytest.raises(InputError, match=r"'z' \(U\+007A\) is none of the 3 .* bytes or bpe"):
        Characters().train(["abc"], ["cab"]).encode("abz")


def test_characters_seen_only_in_held_out_text_share_one_id() -> None:
    tokenizer = Characters().train(["abc"], ["abd"])
    assert tokenizer.vocabulary == 4
    assert tokenizer.decode(tokenizer.encode("abd😀")) == "ab\ufffd\ufffd"
    assert tokenizer.encode("d😀") == tokenizer.plain.encode("d😀").ids == [3, 3]


@pytest.mark.parametrize("spec", [Bpe(), Characters()], ids=["bpe", "characters"])
def test_nothing_to_train_on(spec: Bpe | Characters) -> None:
    with pytest.raises(InputError, match="no training text"):
        spec.train([], ["held out"])


def test_bpe_learns_frequent_pairs_and_stops_when_there_are_no_more() -> None:
    assert BPE.vocabulary == 300
    assert len(BPE.encode(TEXT)) < len(TEXT.encode()) / 2
    assert Bpe(vocabulary=8192).train(["ab ab"], []).vocabulary < 270


@pytest.mark.parametrize("tokenizer", [BYTES, BPE, CHARACTERS], ids=["bytes", "bpe", "characters"])
@pytest.mark.parametrize("text", ["a\ud800", "\udcffb"])
def test_lone_surrogates(tokenizer: TextTokenizer, text: str) -> None:
    with pytest.raises(InputError, match=r"character [01] of the text is U\+D[8C].., half of a surrogate pair"):
        tokenizer.encode(text)
    with pytest.raises(InputError, match="surrogate"):
        list(tokenizer.encode_documents(["fine", text]))
    for spec in (Bpe(vocabulary=300), Characters()):
        with pytest.raises(InputError, match="surrogate"):
            spec.train([text], [])


@pytest.mark.parametrize("text", ["\x00", "\u202eabc\u202c", "e" + "\u0301" * 100_000, "a" * 100_000])
def test_odd_texts(text: str) -> None:
    for tokenizer in (BYTES, BPE):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("token", [-1, 300, 2**40])
def test_ids_outside_of_the_vocabulary(token: int) -> None:
    with pytest.raises(InputError, match=rf"token {token} at 1 is outside of the vocabulary: 0 to 299"):
        BPE.decode([5, token])
    with pytest.raises(InputError, match="outside of the vocabulary"):
        BPE.stream().push(token)


def merge_overrun(definition: dict) -> None:
    definition["model"]["merges"] = [["ab", "ab"]]


def prefix_overrun(definition: dict) -> None:
    definition["model"]["continuing_subword_prefix"] = "####"


def cut_short(definition: dict) -> None:
    definition.pop("model")


@pytest.mark.parametrize("damage", [merge_overrun, prefix_overrun, cut_short])
def test_a_malformed_tokenizer(damage: Callable[[dict], None], tmp_path: Path) -> None:
    definition = json.loads(Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])).to_str())
    damage(definition)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(definition))
    with pytest.raises(InputError, match=r"tokenizer\.json: the tokenizers library says") as caught:
        TextTokenizer.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, b"", b"\xff", b"[" * 5000])
def test_no_tokenizer_at_all(data: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        TextTokenizer.load(path)


def test_a_pattern_without_end() -> None:
    backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"(a+)+$"), "isolated")
    with pytest.raises(InputError, match=r"cannot be encoded: the tokenizers library says: .*retry-limit"):
        TextTokenizer(backend).encode("a" * 40 + "b")


def test_the_guard_lets_the_end_of_the_process_through() -> None:
    for error in (KeyboardInterrupt, SystemExit, MemoryError):
        with pytest.raises(error), guarded("this"):
            raise error


def test_specs() -> None:
    assert from_dict(TokenizerRole, "bytes") == Bytes()
    assert from_dict(TokenizerRole, {"kind": "bpe", "vocabulary": 4e3}) == Bpe(vocabulary=4000)
    assert Bpe().to_dict() == {"kind": "bpe", "vocabulary": 8192}
    with pytest.raises(ValueError, match="greater than or equal to 257"):
        Bpe(vocabulary=256)


def test_numpy_ids_decode() -> None:
    assert BYTES.decode(np.array([104, 105], dtype=np.uint16)) == "hi"
