"""Small models that say clear and different things, for the tests of generation."""

from typing import Any

import numpy as np
import torch
from torch import Generator, nn

from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.data.tokenizer import TextTokenizer
from anyformer.generation.prompts import Prompts
from anyformer.generation.sampling import Sampling

GREEDY = Sampling(greedy=True)
TEXT = "the cat sat on the mat, the dog ran — 日本 é " * 20
STREAMING = "causal & (sinks(2) | window(5))"
LINEAR = {"kind": "block", "mixer": {"kind": "linear", "heads": 2}}
SOFTMAX = {"kind": "block", "mixer": {"kind": "softmax", "heads": 2}}
MODELS: dict[str, Any] = {
    "full": {},
    "streaming": {"mixer": {"pattern": STREAMING}},
    "linear": {"body": {"kind": "stack", "blocks": [LINEAR] * 2}},
    "learned": {"mixer": {"position": "none"}, "position": {"kind": "learned", "length": 40}},
    "memory": {"body": {"kind": "rmt", "segment": 6, "slots": 2, "inner": {"kind": "stack", "blocks": [SOFTMAX]}}},
    "prefix": {"mixer": {"pattern": "causal | prefix"}, "labels": ["prefix"]},
}


def decoder(mixer: dict[str, Any] | None = None, vocabulary: int = 23, seed: int = 0, **fields: Any) -> Model:
    """Tied heads and large biases would say one word."""
    block = {"kind": "block", "mixer": {"kind": "softmax", "heads": 2, "position": "rotary", **(mixer or {})}}
    body = {"kind": "stack", "blocks": [block, block]}
    tree = {"kind": "decoder", "width": 16, "vocabulary": vocabulary, "body": body, "head": "language", **fields}
    return drawn(from_dict(AnyModel, tree).build(seed=3, dtype=torch.float64), seed)


def translator(vocabulary: int = 23, source_vocabulary: int | None = None, seed: int = 0) -> EncoderDecoderModel:
    """An encoder and a decoder."""
    mixer = {"kind": "softmax", "heads": 2, "position": "rotary"}
    reads = {"kind": "block", "mixer": {**mixer, "pattern": "full"}}
    writes = {"kind": "block", "mixer": mixer, "cross": {"kind": "cross", "heads": 2}}
    tree = {
        "kind": "encoder_decoder",
        "width": 16,
        "vocabulary": vocabulary,
        "source_vocabulary": source_vocabulary,
        "source_embedding": "tokens",
        "encoder": {"kind": "stack", "blocks": [reads]},
        "decoder": {"kind": "stack", "blocks": [writes, writes]},
        "head": "language",
    }
    model = drawn(from_dict(AnyModel, tree).build(seed=3, dtype=torch.float64), seed)
    assert isinstance(model, EncoderDecoderModel)
    return model


def drawn(model: Model, seed: int) -> Model:
    """With matrices so large that its choices are clear."""
    draw = Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.5, generator=draw)
    return model.eval()


def speaking(tokenizer: TextTokenizer, **fields: Any) -> Model:
    """A decoder with a text side."""
    model = decoder(vocabulary=tokenizer.vocabulary, **fields)
    model.tokenizer = tokenizer
    return model


def random_prompts(*lengths: int, vocabulary: int = 23) -> list[list[int]]:
    draw = np.random.default_rng(1)
    return [draw.integers(vocabulary, size=length).tolist() for length in lengths]


def even(prompts: list[list[int]], count: int, sources: list[list[int]] | None = None) -> Prompts:
    """As many tokens for every row."""
    return Prompts(prompts, [count] * len(prompts), sources)


@torch.no_grad()
def next_logits(model: Model, prompt: list[int], written: list[int], source: list[int] | None = None) -> torch.Tensor:
    """(V,) by the definition: all is read again."""
    ids = torch.tensor([prompt + written])
    given: dict[str, Any] = {}
    if source is not None:
        assert isinstance(model, EncoderDecoderModel)
        given["sources"] = {"source": model.encode(torch.tensor([source]))}
    if "prefix" in model.labels:
        given["labels"] = {"prefix": torch.tensor([[1] * len(prompt) + [0] * len(written)])}
    return model(ids, **given)[0, -1]


def recomputed(model: Model, prompt: list[int], count: int, source: list[int] | None = None) -> list[int]:
    """Greedy by the definition."""
    written: list[int] = []
    for _ in range(count):
        written.append(int(next_logits(model, prompt, written, source).argmax()))
    return written
