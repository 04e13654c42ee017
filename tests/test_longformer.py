"""Longformer's attention against transformers' own, inside its models: windows, global tokens, padding."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.core.clock import clock
from anyformer.core.context import Context, Where
from anyformer.core.layer import Layer
from anyformer.core.roles import Mixer
from anyformer.core.spec import Site, from_dict
from anyformer.core.tape import Tape

C, HEADS, T = 21, 3, 17
NAMES = {
    "q": "self.query",
    "k": "self.key",
    "v": "self.value",
    "q_global": "self.query_global",
    "k_global": "self.key_global",
    "v_global": "self.value_global",
    "o": "output.dense",
}
IDS = torch.randint(3, 31, (3, T), generator=torch.Generator().manual_seed(0))
MARKED = (torch.rand(3, T, generator=torch.Generator().manual_seed(1)) < 0.2).long()
PLACE, LENGTHS = torch.arange(T), torch.tensor([[T], [9], [2]])
PADDING = {"none": None, "right": PLACE < LENGTHS, "left": PLACE >= T - LENGTHS}


def reference(name: str) -> Any:
    """A model of two layers, windows 8 and 4, with weights that are not small."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LongformerConfig(
        vocab_size=31, hidden_size=C, num_attention_heads=HEADS, num_hidden_layers=2, intermediate_size=11,
        attention_window=[8, 4], max_position_embeddings=40, pad_token_id=1,
    )  # fmt: skip
    model = getattr(transformers, name)(config).double().eval()
    torch.manual_seed(2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def ours(attention: Any, window: int, global_tokens: str) -> Layer:
    """The mixer with the weights of transformers' module `attention`."""
    fields = {"heads": HEADS, "bias": True, "pattern": f"window({window // 2 + 1})", "global_tokens": global_tokens}
    spec = from_dict(Mixer, {"kind": "longformer", **fields})
    mixer = spec.build(Site("mixer", C, labels=frozenset({"global"}))).double()
    theirs = attention.state_dict()
    ends = ("weight", "bias")
    mixer.load_state_dict({f"{name}.{end}": theirs[f"{other}.{end}"] for name, other in NAMES.items() for end in ends})
    return mixer


def placed(real: Tensor | None, marked: Tensor = MARKED) -> Where:
    return clock(IDS, real, {"global": marked}, None, None)[0]


@torch.no_grad()
def assert_layers_agree(model: Any, where: Where, global_tokens: str, **given: Any) -> None:
    """In every layer: what comes in, through our mixer, is what goes out, wherever there is a token."""
    longformer = getattr(model, "longformer", model)
    caught: list[tuple[Any, Tensor, list[Tensor]]] = []
    for layer in longformer.encoder.layer:
        outs: list[Tensor] = []
        layer.attention.self.register_forward_pre_hook(
            lambda module, inputs, at=layer.attention, outs=outs: caught.append((at, inputs[0], outs))
        )
        layer.attention.output.dense.register_forward_hook(lambda module, inputs, out, outs=outs: outs.append(out))
    model(IDS, attention_mask=where.real.long(), **given)
    assert len(caught) == 2
    for (attention, x, (want,)), window in zip(caught, (8, 4), strict=True):
        assert x.shape[1] == 24  # padded to a multiple of the window
        got = ours(attention, window, global_tokens)(x[:, :T], Context(where))[0]
        assert_close(got[where.real], want[:, :T][where.real], rtol=1e-10, atol=1e-10)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' softmax in the numbers that it is given: it asks for float32."""
    softmax = F.softmax
    monkeypatch.setattr(F, "softmax", lambda x, dim, dtype=None: softmax(x, dim))


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("side", PADDING)
def test_marked_tokens_are_global(side: str) -> None:
    where = placed(PADDING[side])
    assert_layers_agree(reference("LongformerModel"), where, "global_tokens(global)", global_attention_mask=MARKED)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", ["LongformerModel", "LongformerForMaskedLM", "LongformerForTokenClassification"])
def test_none_are_global_unless_marked(name: str) -> None:
    assert_layers_agree(reference(name), placed(PADDING["right"], 0 * MARKED), "global_tokens(global)")


@pytest.mark.usefixtures("exact")
def test_a_classifiers_first_token_is_global() -> None:
    model = reference("LongformerForSequenceClassification")
    assert_layers_agree(model, placed(PADDING["right"], 0 * MARKED), "global_tokens(global, first=1)")


def alone() -> Layer:
    spec = from_dict(Mixer, {"kind": "longformer", "heads": HEADS, "pattern": "window(2)"})
    mixer = spec.build(Site("mixer", C, labels=frozenset({"global"}))).double()
    for number, parameter in enumerate(mixer.parameters()):
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(number))
    return mixer


@torch.no_grad()
def test_the_tape_sees_both_kinds_of_weights_and_changes_nothing() -> None:
    mixer, x, where = alone(), F.one_hot(IDS, C + 10)[..., :C].double(), placed(PADDING["left"])
    tape = Tape(["mixer.*"])
    watched = mixer(x, Context(where, tape=tape))[0]
    assert_close(watched, mixer(x, Context(where))[0], rtol=1e-12, atol=1e-12)
    near, far = tape["mixer.weights"], tape["mixer.global_weights"]
    marked, real = MARKED.bool() & where.real, where.real
    seen = ((PLACE[:, None] - PLACE).abs() < 2) | marked[:, None] | marked[:, :, None]
    local = real & ~marked
    assert torch.equal(near.transpose(1, 2)[local] > 0, (seen & real[:, None])[local][:, None].expand(-1, HEADS, -1))
    assert torch.equal(
        far.transpose(1, 2)[marked] > 0, real[:, None].expand(3, T, T)[marked][:, None].expand(-1, 3, -1)
    )


def test_an_undeclared_label_is_named() -> None:
    spec = from_dict(Mixer, {"kind": "longformer", "heads": HEADS})
    with pytest.raises(
        ValueError, match=r"mixer.global_tokens: 'global_tokens\(global\)' reads the labels \['global'\]"
    ):
        spec.build(Site("mixer", C))
