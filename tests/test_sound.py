"""Sound: two convolutions by the definition, and Whisper as `transformers` computes it."""

import re
from typing import Any

import pytest
import torch
from oracles.published import redrawn
from oracles.saved import CLOSE, drawn, filled, saved
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.core.model import Model
from anyformer.core.roles import AnyModel, Embedding
from anyformer.core.spec import Site, from_dict

SIZES = {
    "vocab_size": 30,
    "num_mel_bins": 5,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 28,
    "max_source_positions": 7,
    "max_target_positions": 11,
    "activation_function": "relu",
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
RENAMES = [
    ("model.", ""),
    ("encoder_attn_layer_norm", "residual.norm.cross"),
    ("encoder_attn", "cross"),
    ("encoder.embed_positions", "source_position"),
    ("encoder.conv1", "source_embedding.first"),
    ("encoder.conv2", "source_embedding.second"),
    ("decoder.embed_tokens", "embedding"),
    ("decoder.embed_positions", "position"),
    ("coder.layers.", "coder.blocks."),
    ("coder.layer_norm", "coder.norm"),
    ("self_attn_layer_norm", "residual.norm.mixer"),
    ("final_layer_norm", "residual.norm.ff"),
    ("self_attn", "mixer"),
    ("q_proj", "q"),
    ("k_proj", "k"),
    ("v_proj", "v"),
    ("out_proj", "o"),
    ("fc1", "ff.up"),
    ("fc2", "ff.down"),
]


def whisper() -> dict[str, Any]:
    attention = {"bias": True, "k_bias": False}
    ears = {"kind": "softmax", "heads": 3, "pattern": "full", **attention}
    hearing = {"kind": "block", "mixer": ears, "ff": {"kind": "mlp", "hidden": 20, "activation": "relu"}}
    writing = {
        "kind": "block",
        "mixer": {"kind": "softmax", "heads": 2, **attention},
        "cross": {"kind": "cross", "heads": 2, **attention},
        "ff": {"kind": "mlp", "hidden": 28, "activation": "relu"},
    }
    return {
        "kind": "encoder_decoder",
        "width": 12,
        "vocabulary": 30,
        "position": {"kind": "learned", "length": 11},
        "source_embedding": {"kind": "frames", "channels": 5},
        "source_position": {"kind": "learned", "length": 7, "trainable": False},
        "encoder": {"kind": "stack", "blocks": [hearing] * 2},
        "decoder": {"kind": "stack", "blocks": [writing] * 3},
    }


def built() -> Model:
    return from_dict(AnyModel, whisper()).build(dtype=torch.float64)


@torch.no_grad()
def test_whisper() -> None:
    transformers = pytest.importorskip("transformers")
    reference = redrawn(transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**SIZES)))
    model: Any = filled(whisper(), saved(reference), RENAMES)
    features, ids = drawn(3, 5, 14), torch.randint(30, (3, 11), generator=torch.Generator().manual_seed(1))
    want = reference(input_features=features, decoder_input_ids=ids)
    source = model.encode(features)
    assert_close(source.vectors, want.encoder_last_hidden_state, **CLOSE)
    whole = model(ids, sources={"source": source})
    assert_close(whole, want.logits, **CLOSE)
    for capacity in (None, 11):  # cut = whole
        state, outs = model.init_state(3, sources={"source": source}, capacity=capacity), []
        for part in ids.split([4, 1, 1, 5], 1):
            out, state = model(part, state)
            outs.append(out)
        assert_close(torch.cat(outs, 1), want.logits, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 7, 8])
def test_two_convolutions(frames: int) -> None:
    part: Any = redrawn(from_dict(Embedding, {"kind": "frames", "channels": 3}).build(Site("embedding", 4)))
    x = drawn(2, 3, frames)

    def convolved(x: Tensor, layer: Any, step: int) -> Tensor:
        around = F.pad(x, (1, 1))
        taps = [around[:, :, at : at + 3] for at in range(0, x.shape[2], step)]
        return torch.stack([F.gelu(torch.einsum("bmk,cmk->bc", tap, layer.weight) + layer.bias) for tap in taps], 2)

    want = convolved(convolved(x, part.first, 1), part.second, 2).transpose(1, 2)
    assert_close(part(x), want, **CLOSE)
    assert want.shape == (2, part.count(x), 4) == (2, (frames + 1) // 2, 4)


def test_fixed_positions_are_not_trained() -> None:
    model: Any = built()
    model.encode(drawn(1, 5, 6)).vectors.sum().backward()
    assert model.source_position.weight.grad is None and model.source_embedding.first.weight.grad is not None


def test_what_is_no_sound() -> None:
    model: Any = built()
    for features in (torch.zeros(1, 4, 6), torch.zeros(5, 6), torch.zeros(1, 5, 0), torch.zeros(1, 5, 6).long()):
        with pytest.raises(ValueError, match=re.escape("source_embedding: sounds must be numbers (B, 5, frames)")):
            model.encode(features)
    with pytest.raises(ValueError, match=r"a text of 8 tokens; this model's positions end after 7"):
        model.encode(drawn(1, 5, 15))
    with pytest.raises(ValueError, match=r"source_embedding: every row makes as many vectors.*leave out lengths"):
        model.encode(drawn(1, 5, 6), torch.tensor([3]))
    with pytest.raises(ValueError, match=r"embedding: this position scheme reads one coordinate"):
        from_dict(Embedding, "frames").build(Site("embedding", 4, rank=2))
