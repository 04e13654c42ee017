"""Tokenizers: every text comes back as it was, whole, in pieces and token by token; what is no text is refused."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from anyformer.core.errors import InputError
from anyformer.core.roles import Tokenizer as TokenizerRole
from anyformer.core.spec import from_dict
from anyformer.data.byte_level import ALPHABET, token_bytes
from anyformer.data.guard import guarded
from anyformer.data.pieces import pieces
from anyformer.data.python_docs import PythonDocs
from anyformer.data.tokenizer import TextTokenizer
from anyformer.data.tokenizers.bpe import Bpe
from anyformer.data.tokenizers.bytes import Bytes
from anyformer.data.tokenizers.characters import Characters
from anyformer.data.tokenizers.file import File
from anyformer.data.tokenizers.unigram import Unigram
from anyformer.data.tokenizers.wordpiece import WordPiece, bert

TEXT = "Once upon a time, there was a naïve café. 你好, 😀! It's 1234.\r\n\n  Once more\tupon a time.\x00 " * 3
BYTES = Bytes().train([], [])
BPE = Bpe(vocabulary=300).train([TEXT], [])
CHARACTERS = Characters().train([TEXT], [])
WORDPIECE = WordPiece(vocabulary=80).train([TEXT], [])
UNIGRAM = Unigram(vocabulary=360).train([TEXT], [])
DOCUMENTS = [row["text"] for row in PythonDocs().rows()][:12]
ALL = {"bytes": BYTES, "bpe": BPE, "characters": CHARACTERS, "wordpiece": WORDPIECE, "unigram": UNIGRAM}
every = pytest.mark.parametrize("tokenizer", ALL.values(), ids=ALL)
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


@given(ANY | st.text(st.sampled_from("\u2581 a<0x41>s/\n"), max_size=12))
@example(" a  b ")
@example("<0x41></s><unk>")
def test_unigram_gives_back_all_but_its_own_space(text: str) -> None:
    assert UNIGRAM.decode(UNIGRAM.encode(text)) == text.replace("\u2581", " ")
    assert UNIGRAM.special.isdisjoint(UNIGRAM.encode(text))


def test_unigram_learns_nothing_that_reads_like_its_own_tokens() -> None:
    text = "<s>a <s>b <s>c a<s> b<s> x<0x41>y z<0x41> <0x41>k " * 40  # "<s>" and "<0x41>" would be pieces
    tokenizer = Unigram(vocabulary=400).train([text], [])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert min(tokenizer.encode(text)) >= 4 + 256
    assert tokenizer.begin == 1


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


@given(CHUNKS, st.integers(10, 20))
@example("once upon a time " * 9, 10)
def test_wordpiece_of_pieces(text: str, size: int) -> None:
    parts = [ids.tolist() for _, ids in WORDPIECE.encode_documents([text], size)]
    assert len(text) <= 2 * size or len(parts) > 1
    assert [token for part in parts for token in part] == WORDPIECE.encode(text)


def prefixed() -> TextTokenizer:
    """Byte-level, with something put before the text."""
    backend = Tokenizer.from_str(BPE.definition)
    backend.normalizer = normalizers.Prepend("x")
    return TextTokenizer(backend)


def with_a_phrase() -> TextTokenizer:
    """Byte-level, with a token of two words."""
    backend = Tokenizer.from_str(BPE.definition)
    backend.add_tokens(["a b"])
    return TextTokenizer(backend)


@pytest.mark.parametrize("make", [sentencepiece, prefixed, with_a_phrase])
def test_a_tokenizer_that_looks_further_gets_texts_whole(make: Callable[[], TextTokenizer]) -> None:
    tokenizer, text = make(), "ab a b ab"
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


@pytest.mark.parametrize("tokenizer", [WORDPIECE, UNIGRAM], ids=["wordpiece", "unigram"])
@given(st.data())
def test_streams_of_words_and_of_pieces(tokenizer: TextTokenizer, data: st.DataObject) -> None:
    whole = [token for token in range(tokenizer.vocabulary) if not tokenizer._token(token).startswith("<0x")]
    ids = data.draw(st.lists(st.sampled_from(whole)))  # single bytes: see WindowStream
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


@every
def test_saved_and_loaded(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.fingerprint == tokenizer.fingerprint
    assert roles(again) == roles(tokenizer)
    assert again.vocabulary == tokenizer.vocabulary
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(TEXT).ids == tokenizer.encode(TEXT)


def roles(tokenizer: TextTokenizer) -> tuple[int | None, ...]:
    t = tokenizer
    return t.begin, t.end, t.pad, t.unknown, t.mask, t.start, t.separator


def test_usual_names_of_special_tokens() -> None:
    assert roles(sentencepiece()) == (1, 2, None, 0, None, 1, 2)
    assert roles(BYTES) == roles(CHARACTERS) == (None,) * 7
    assert roles(BPE) == (0, 0, None, None, None, None, None)
    assert roles(WORDPIECE) == (2, 3, 0, 1, 4, 2, 3)
    assert roles(UNIGRAM) == (1, 2, 0, 3, None, 1, 2)
    translation = Bpe(vocabulary=300, special=("<pad>", "<s>", "</s>", "<2de>")).train([TEXT], [])
    assert roles(translation) == (1, 2, 0, None, None, 1, 2)
    assert translation.special == {0, 1, 2, 3}
    assert translation.vocabulary == 300


# Vocabularies by hand


def test_wordpiece_as_it_was_published(tmp_path: Path) -> None:
    """The vocabulary and the ids of the test that BERT was published with, [PAD] and [MASK] put at its end."""
    words = ["[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing", ",", "[PAD]", "[MASK]"]
    tokenizer = bert(words, lowercase=True)
    assert tokenizer.encode("UNwant\u00e9d,running") == [7, 4, 5, 10, 8, 9]
    assert tokenizer.encode("unwantedX running wan") == [0, 8, 9, 0]
    assert tokenizer.decode([7, 4, 5, 10, 8, 9, 3]) == "unwanted, running want"
    (tmp_path / "vocab.txt").write_text("\r\n".join(words) + "\r\n")
    assert File(path=str(tmp_path)).existing().encode("UNwant\u00e9d,running") == [7, 4, 5, 10, 8, 9]


def test_wordpiece_learns_the_pairs_of_words() -> None:
    """a 5 times and b 3 times; then a+b (3), a+ab (2), and at the start of a word aab (2) and ab (1)."""
    tokenizer = WordPiece(vocabulary=50).train(["aab AAB", "ab"], [])
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a", "##b", "##ab", "##aab", "aab", "ab"]
    assert [tokenizer._token(token) for token in range(tokenizer.vocabulary)] == known
    assert tokenizer.encode("aab \u00e2b ba baab c a,") == [11, 12, 6, 7, 6, 10, 1, 5, 1]
    assert WordPiece(vocabulary=11).train(["aab AAB", "ab"], []).encode("aab") == [5, 9]
    assert WordPiece(lowercase=False).train(["aab AAB", "ab"], []).encode("A") != tokenizer.encode("A")


def test_wordpiece_takes_rare_letters_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyformer.data.tokenizers.wordpiece.CHARACTERS", 2)
    tokenizer = WordPiece(vocabulary=50).train(["aab AAB", "ab c"], [])
    assert [tokenizer._token(token) for token in range(5, 14)] == [
        *("a", "b", "##a", "##b", "##ab", "##aab", "aab", "ab", "c")
    ]


def test_words_that_wordpiece_knows_come_back_in_small_letters() -> None:
    assert (
        WORDPIECE.decode(WORDPIECE.encode("Once upon\n a  Na\u00efve TIME, once!")) == "once upon a naive time, once!"
    )
    assert WORDPIECE.decode(WORDPIECE.encode("once q upon")) == "once upon"  # [UNK] is no text
    assert WORDPIECE.encode("q") == [WORDPIECE.unknown]


def best_score(text: str, scores: dict[str, float]) -> float:
    """Of all ways to write a text by pieces, the most probable."""
    best = [0.0] + [float("-inf")] * len(text)
    for end in range(1, len(text) + 1):
        for start in range(end):
            best[end] = max(best[end], best[start] + scores.get(text[start:end], float("-inf")))
    return best[-1]


@given(st.lists(st.text(st.sampled_from("Onceupatimor"), min_size=1), min_size=1, max_size=4).map(" ".join))
def test_unigram_takes_the_most_probable_pieces(text: str) -> None:
    scores = dict(json.loads(UNIGRAM.definition)["model"]["vocab"])
    found = sum(scores[UNIGRAM._token(token)] for token in UNIGRAM.encode(text))
    assert found == pytest.approx(sum(best_score("\u2581" + word, scores) for word in text.split()), abs=1e-9)


def test_unigram_learns_whole_words() -> None:
    tokenizer = Unigram(vocabulary=1500).train(DOCUMENTS, [])
    assert [tokenizer._token(token) for token in tokenizer.encode("the function")] == ["\u2581the", "\u2581function"]
    with pytest.raises(InputError, match=r"vocabulary of 300, 256 of it for bytes: .* not large enough"):
        Unigram(vocabulary=300).train(["".join(map(chr, range(0x4E00, 0x4F00)))], [])


@pytest.mark.parametrize("spec", [Bpe(vocabulary=900), WordPiece(vocabulary=900), Unigram(vocabulary=900)])
def test_the_same_text_gives_the_same_vocabulary(spec: Bpe | WordPiece | Unigram) -> None:
    assert len({spec.train(DOCUMENTS, []).definition for _ in range(3)}) == 1


# Where tokens are


@given(ANY)
@example("n\u00e9 \U0001f600x\u0301 \r\n")
@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
def test_offsets_are_characters(tokenizer: TextTokenizer, text: str) -> None:
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text)
    for token, (start, end) in zip(ids, offsets, strict=True):
        assert token_bytes(tokenizer._token(token)) in text[start:end].encode()
    assert all(before[1] in (after[0], after[0] + 1) for before, after in pairwise(offsets))
    assert "".join(text[start:end] for start, end in sorted({*offsets})) == text or not text


def test_offsets_of_words_and_of_pieces() -> None:
    text = "na\u00efve \U0001f600 tim\u00e9,"
    assert [text[start:end] for start, end in WORDPIECE.encode_with_offsets(text)[1]][-2:] == ["tim\u00e9", ","]
    for tokenizer in (UNIGRAM, CHARACTERS):
        _, offsets = tokenizer.encode_with_offsets(text)
        assert "".join(text[start:end] for start, end in sorted({*offsets} - {(0, 1)})) == text[1:]
    with pytest.raises(InputError, match=r"character 'z' \(U\+007A\)"):
        CHARACTERS.encode_with_offsets("z")


WORDS_OF_TEXT = st.lists(st.sampled_from(["Once", "na\u00efve", "\U0001f600", "it's", "1234.", "time", "\u4f60\u597d"]))


@given(WORDS_OF_TEXT)
@every
def test_the_tokens_of_words(tokenizer: TextTokenizer, words: list[str]) -> None:
    if tokenizer is CHARACTERS:
        words = [word for word in words if {*word} <= {*TEXT}]
    parts = tokenizer.encode_words(words)
    assert len(parts) == len(words)
    assert [token for part in parts for token in part] == tokenizer.encode(" ".join(words))
    for part, word in zip(parts, words, strict=True):
        if tokenizer is WORDPIECE:
            assert part == tokenizer.encode(word)
        else:
            assert tokenizer.decode(part).strip() == word


def test_words_of_which_nothing_is_kept() -> None:
    assert WORDPIECE.encode_words(["once", "\u200d", "upon"])[1] == []
    assert BPE.encode_words([]) == []


# Tokenizers that exist


def test_pairs_in_two_files(tmp_path: Path) -> None:
    vocabulary = {token: at for at, token in enumerate([*ALPHABET, "he", "hel", "\u0120hel", "<s>", "</s>", "<mask>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\nhe l\n\u0120 hel\n")
    tokenizer = File(path=str(tmp_path)).train([], [])
    assert tokenizer.encode("hel hel") == [257, 258]
    assert tokenizer.decode([257, 258]) == "hel hel"
    assert roles(tokenizer) == (259, 260, None, None, 261, 259, 260)
    assert tokenizer.special == {259, 260, 261}
    assert tokenizer.encode("<s>")[0] == vocabulary["<"]
    (tmp_path / "merges.txt").write_text("h\n")
    with pytest.raises(InputError, match=r"vocab\.json and merges\.txt: the tokenizers library says"):
        File(path=str(tmp_path)).existing()
    (tmp_path / "merges.txt").write_text("h e\n")
    for other in ({"h": 0, "e": 1, "he": 2}, {**vocabulary, "e</w>": 262}):  # CLIP's marks the ends of words
        (tmp_path / "vocab.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match=r"vocab\.json: is no byte-level vocabulary"):
            File(path=str(tmp_path)).existing()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["[PAD]", "a", "b", "a"], r"vocab\.txt, line 4: 'a' stands on line 2 too"),
        (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], r"vocab\.txt: .* it lacks \[MASK\]"),
    ],
)
def test_words_that_are_no_vocabulary(words: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    with pytest.raises(InputError, match=says):
        File(path=str(tmp_path)).existing()


def test_a_vocabulary_with_capitals_keeps_them(tmp_path: Path) -> None:
    words = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    for last, ids in (("c", [6]), ("A", [8])):
        (tmp_path / "vocab.txt").write_text("\n".join([*words, last]))
        assert File(path=str(tmp_path)).existing().encode("A") == ids


def test_a_tokenizer_of_a_folder_or_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"mine holds no tokenizer: neither tokenizer\.json"):
        File(path="mine").existing()
    BPE.save(tmp_path / "mine" / "tokenizer.json")
    assert File(path="mine").existing().definition == BPE.definition
    assert File(path="mine/tokenizer.json").existing().definition == BPE.definition
    with pytest.raises(InputError, match=r"no yours nor .*--set data\.tokenizer\.path="):
        File(path="yours").existing()


def test_published_tokenizers_cut_and_fill_nothing(tmp_path: Path) -> None:
    backend = Tokenizer.from_str(BPE.definition)
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = File(path=str(tmp_path)).existing()
    assert tokenizer.encode(TEXT) == BPE.encode(TEXT)
    assert [ids.tolist() for _, ids in tokenizer.encode_documents(["a", "b c"])] == [BPE.encode("a"), BPE.encode("b c")]


def test_a_published_unigram_gives_away_no_special_token() -> None:
    pieces = [("<s>", 0.0), ("<unk>", 0.0), ("a", -3.0), ("s", -3.0), ("<", -4.0), (">", -4.0)]
    backend = Tokenizer(models.Unigram(pieces, 1, False))
    backend.add_special_tokens(["<s>", "<unk>"])
    tokenizer = TextTokenizer(backend)
    assert tokenizer.plain.encode("a<s>").ids == [2, 0]  # what the library makes of it
    assert tokenizer.encode("a<s>") == tokenizer.encode_with_offsets("a<s>")[0] == [2, 1]
    assert [ids.tolist() for _, ids in tokenizer.encode_documents(["a<s>"])] == [[2, 1]]
    assert tokenizer.encode("a<s>", special=True) == [2, 0]


@pytest.mark.needs_shared
def test_gpt2(shared: Path) -> None:
    tokenizer = File(path=str(shared / "gpt2-tokenizer")).existing()
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert roles(tokenizer) == (50256, 50256, None, None, None, None, None)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert File(path="gpt2-tokenizer").existing().fingerprint == tokenizer.fingerprint


@pytest.mark.needs_shared
def test_a_small_published_model(shared: Path) -> None:
    tokenizer = File(path=str(shared / "stories260K")).existing()
    assert (tokenizer.vocabulary, tokenizer.begin, tokenizer.end, tokenizer.unknown) == (512, 1, 2, 0)
    assert tokenizer.decode(tokenizer.encode("Once upon a time, <s> na\u00efve")) == "Once upon a time, <s> na\u00efve"


def test_characters_refuse_what_they_do_not_know() -> None:
    with pytest.raises(InputError, match=r"'z' \(U\+007A\) is none of the 3 .* bytes or bpe"):
        Characters().train(["abc"], ["cab"]).encode("abz")


def test_characters_seen_only_in_held_out_text_share_one_id() -> None:
    tokenizer = Characters().train(["abc"], ["abd"])
    assert tokenizer.vocabulary == 4
    assert tokenizer.decode(tokenizer.encode("abd😀")) == "ab\ufffd\ufffd"
    assert tokenizer.encode("d😀") == tokenizer.plain.encode("d😀").ids == [3, 3]


@pytest.mark.parametrize("spec", [Bpe(), Characters(), WordPiece(), Unigram()])
def test_nothing_to_train_on(spec: Bpe | Characters | WordPiece | Unigram) -> None:
    with pytest.raises(InputError, match="no training text"):
        spec.train([], ["held out"])
    if not isinstance(spec, Characters):
        with pytest.raises(InputError, match="no training text"):
            spec.train(["", " \n"], ["held out"])


def test_bpe_learns_frequent_pairs_and_stops_when_there_are_no_more() -> None:
    assert BPE.vocabulary == 300
    assert len(BPE.encode(TEXT)) < len(TEXT.encode()) / 2
    assert Bpe(vocabulary=8192).train(["ab ab"], []).vocabulary < 270


@every
@pytest.mark.parametrize("text", ["a\ud800", "\udcffb"])
def test_lone_surrogates(tokenizer: TextTokenizer, text: str) -> None:
    with pytest.raises(InputError, match=r"character [01] of the text is U\+D[8C].., half of a surrogate pair"):
        tokenizer.encode(text)
    with pytest.raises(InputError, match="surrogate"):
        list(tokenizer.encode_documents(["fine", text]))
    for spec in (Bpe(vocabulary=300), Characters(), WordPiece(), Unigram()):
        with pytest.raises(InputError, match="half of a surrogate pair"):
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
    assert Bpe().to_dict() == {"kind": "bpe", "vocabulary": 8192, "special": ["<|endoftext|>"]}
    with pytest.raises(ValueError, match=r"vocabulary \(258\) must be at least 259"):
        Bpe(vocabulary=258, special=("<pad>", "<s>", "</s>"))
    with pytest.raises(ValueError, match="must differ"):
        Bpe(special=("<s>", "<s>"))
    for word in ("", "end", "<>", " <s>"):  # a text could read like it
        with pytest.raises(ValueError, match="pattern"):
            Bpe(special=(word,))


def test_numpy_ids_decode() -> None:
    assert BYTES.decode(np.array([104, 105], dtype=np.uint16)) == "hi"
