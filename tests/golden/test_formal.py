"""Our models against the formal algorithms of Phuong & Hutter (2022), transposed once at the end.

Weights are redrawn at std 0.5: at the usual 0.02 a wrong nonlinearity would pass.
"""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from oracles import formal
from torch import Tensor, nn

from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict

WIDTH, HEADS, SIZE, HIDDEN, LAYERS, VOCABULARY, LENGTH = 20, 5, 3, 33, 3, 23, 11  # heads x size is not the width
X, Z = [3, 22, 0, 7, 7, 1, 15, 4, 11], [5, 9, 21, 2, 2, 17, 0]
SAME = {"rtol": 0.0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def no_history() -> Iterator[None]:
    with torch.no_grad():
        yield


def block(residual: str, activation: str, pattern: str, cross: bool = False) -> dict:
    heads = {"heads": HEADS, "head_size": SIZE, "bias": True}
    return {
        "kind": "block",
        "mixer": {"kind": "softmax", "pattern": pattern, **heads},
        "cross": {"kind": "cross", **heads} if cross else None,
        "ff": {"kind": "mlp", "hidden": HIDDEN, "activation": activation},
        "residual": residual,
    }


def stack(norm: str, one: dict) -> dict:
    return {"kind": "stack", "blocks": [one] * LAYERS, "norm": norm}


def build(kind: str, **parts: object) -> Model:
    """In float64, every weight redrawn."""
    position = {"kind": "learned", "length": LENGTH}
    tree = {"kind": kind, "width": WIDTH, "vocabulary": VOCABULARY, "position": position, **parts}
    model = from_dict(AnyModel, tree).build(dtype=torch.float64)
    generator = torch.Generator().manual_seed(9)
    for weight in model.parameters():
        weight.normal_(std=0.5, generator=generator)
    return model


def decoder() -> Model:
    return build("decoder", body=stack("layer", block("pre", "gelu", "causal")), head="language")


def encoder() -> Model:
    return build("encoder", body=stack("no_norm", block("post", "gelu", "full")))


def encoder_decoder() -> Model:
    return build(
        "encoder_decoder",
        encoder=stack("no_norm", block("post", "relu", "full")),
        decoder=stack("no_norm", block("post", "relu", "causal", cross=True)),
        source_position={"ref": "position"},
        head="language",
    )


class Theta:
    """The paper's parameters, read from a model's tensors by name."""

    def __init__(self, model: Model) -> None:
        self.named = dict(model.state_dict())
        self.embeddings = formal.Embeddings(self.named["embedding.weight"].T, self.named["position.weight"].T)

    def multi_head(self, path: str) -> formal.MultiHead:
        def cut(name: str, last: int, first: int) -> tuple[Tensor, Tensor]:
            return self.named[f"{path}.{name}.weight"][first:last], self.named[f"{path}.{name}.bias"][first:last]

        bounds = pairwise(range(0, HEADS * SIZE + 1, SIZE))
        heads = [formal.Head(*cut("q", b, a), *cut("k", b, a), *cut("v", b, a)) for a, b in bounds]
        return formal.MultiHead(heads, self.named[f"{path}.o.weight"], self.named[f"{path}.o.bias"])

    def norm(self, path: str) -> formal.Norm:
        return formal.Norm(self.named[f"{path}.weight"], self.named[f"{path}.bias"])

    def mlp(self, path: str) -> formal.Perceptron:
        return formal.Perceptron(
            *(self.named[f"{path}.{n}"] for n in ("up.weight", "up.bias", "down.weight", "down.bias"))
        )

    def encoder_layers(self, path: str) -> list[formal.EncoderLayer]:
        blocks = [f"{path}.blocks.{i}" for i in range(LAYERS)]
        return [
            formal.EncoderLayer(
                self.multi_head(f"{b}.mixer"),
                self.norm(f"{b}.residual.norm.mixer"),
                self.mlp(f"{b}.ff"),
                self.norm(f"{b}.residual.norm.ff"),
            )
            for b in blocks
        ]

    def decoder_layers(self, path: str) -> list[formal.DecoderLayer]:
        blocks = [f"{path}.blocks.{i}" for i in range(LAYERS)]
        return [
            formal.DecoderLayer(
                self.multi_head(f"{b}.mixer"),
                self.norm(f"{b}.residual.norm.mixer"),
                self.multi_head(f"{b}.cross"),
                self.norm(f"{b}.residual.norm.cross"),
                self.mlp(f"{b}.ff"),
                self.norm(f"{b}.residual.norm.ff"),
            )
            for b in blocks
        ]


def d_transformer(theta: Theta) -> Tensor:
    last = theta.norm("body.norm")
    return formal.d_transformer(
        X, theta.embeddings, theta.encoder_layers("body"), last, theta.named["head.out.weight"]
    ).log()


def ours(model: Model, ids: list[int], **given) -> Tensor:
    """Log-probabilities in the paper's orientation, (V, l): the one transpose."""
    return model(torch.tensor([ids]), **given)[0].log_softmax(-1).T


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def test_decoder_is_algorithm_10() -> None:
    model = decoder()
    torch.testing.assert_close(ours(model, X), d_transformer(Theta(model)), **SAME)


def test_encoder_is_the_body_of_algorithm_9() -> None:
    model, theta = encoder(), Theta(encoder())
    expected = formal.e_body(X, theta.embeddings, theta.encoder_layers("body"))
    torch.testing.assert_close(model(torch.tensor([X]))[0].T, expected, **SAME)


def test_encoder_decoder_is_algorithm_8() -> None:
    model = encoder_decoder()
    theta = Theta(model)
    layers = theta.encoder_layers("encoder"), theta.decoder_layers("decoder")
    expected = formal.ed_transformer(Z, X, theta.embeddings, *layers, theta.named["head.out.weight"])
    sources = {"source": model.encode(torch.tensor([Z]))}
    torch.testing.assert_close(ours(model, X, sources=sources), expected.log(), **SAME)


def test_a_wrong_gelu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder()
    monkeypatch.setattr(formal, "gelu", nn.GELU(approximate="tanh"))
    assert difference(ours(model, X), d_transformer(Theta(model))) > 1e-4


def test_a_missing_final_norm_is_seen() -> None:
    model = decoder()
    expected = d_transformer(Theta(model))
    model.get_submodule("body").norm = nn.Identity()
    assert difference(ours(model, X), expected) > 1


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_mask_off_by_one_is_seen(monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    model = decoder()
    # the first token always sees itself, else its column would be empty
    monkeypatch.setattr(formal, "not_later", lambda t_z, t_x: t_z <= t_x + shift or t_z == t_x == 0)
    assert difference(ours(model, X), d_transformer(Theta(model))) > 0.1


def test_swapped_norms_of_a_layer_are_seen() -> None:
    """Post-norm instead of pre-norm, with the same weights."""
    model = build("decoder", body=stack("layer", block("post", "gelu", "causal")), head="language")
    assert difference(ours(model, X), d_transformer(Theta(model))) > 0.1


def test_the_algorithms_agree_with_each_other() -> None:
    theta = Theta(decoder())
    head = theta.multi_head("body.blocks.0.mixer").heads[2]
    E, C = formal.embed(X, theta.embeddings), formal.embed(Z, theta.embeddings)
    together = formal.attention(E, C, head, formal.everything)
    for t in range(len(X)):  # algorithm 3 is a column of algorithm 4
        torch.testing.assert_close(formal.single_query(E[:, t], list(C.T), head), together[:, t], **SAME)
    weights = formal.attention_weights(E, C, head, formal.everything)
    torch.testing.assert_close(weights.sum(0), torch.ones(len(X), dtype=torch.float64), **SAME)
    assert (weights.sum(1) - 1).abs().max() > 0.1
