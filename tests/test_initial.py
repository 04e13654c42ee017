"""First weights: their width, whom it depends on, and that a model's declaration reaches every linear map."""

import pytest
import torch

from anyformer.core.roles import AnyModel
from anyformer.core.spec import Site, from_dict
from anyformer.core.tables import row, table

BLOCK = {"kind": "block", "mixer": {"kind": "softmax", "heads": 4, "bias": True}, "ff": {"kind": "mlp", "hidden": 96}}
OUT, INTO, LAYERS = 160, 96, 3
WIDTHS = {  # of a map that does not join the stream, and of one of six that do
    "normal": (0.02, 0.02 / 6**0.5),
    "fan_in": (INTO**-0.5, (6 * INTO) ** -0.5),
    "xavier": ((2 / (OUT + INTO)) ** 0.5,) * 2,
}


def drawn(kind: str, joining: int = 1, **fields: object) -> torch.Tensor:
    weight = torch.empty(OUT, INTO, dtype=torch.float64)
    row("anyformer.initial", kind)(**fields).fill(OUT, INTO, joining)(weight, torch.Generator().manual_seed(5))
    return weight


def test_every_row_is_measured() -> None:
    assert WIDTHS.keys() == table("anyformer.initial").keys()


@pytest.mark.parametrize(("kind", "joining"), [(kind, which) for kind in WIDTHS for which in (0, 1)])
def test_the_width_is_the_papers(kind: str, joining: int) -> None:
    weight = drawn(kind, 6 if joining else 1)
    assert weight.std().item() == pytest.approx(WIDTHS[kind][joining], rel=0.02)  # 15,360 numbers: ±0.6 %
    assert abs(weight.mean().item()) < 0.05 * WIDTHS[kind][joining]


@pytest.mark.parametrize(
    ("kind", "field"), [("normal", {"std": 0.04}), ("fan_in", {"gain": 2.0}), ("xavier", {"gain": 2.0})]
)
def test_its_factor_is_a_factor(kind: str, field: dict[str, float]) -> None:
    torch.testing.assert_close(drawn(kind, 6, **field), 2 * drawn(kind, 6), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["normal", "fan_in"])
def test_without_shrinking_all_are_as_wide(kind: str) -> None:
    assert torch.equal(drawn(kind, 6, shrink=False), drawn(kind, 1))


def test_xavier_is_uniform_up_to_its_limit() -> None:
    limit = (6 / (OUT + INTO)) ** 0.5
    quarters = torch.histc(drawn("xavier"), 4, -limit, limit)
    assert quarters.sum() == OUT * INTO and (quarters / quarters.mean() - 1).abs().max() < 0.05


def model(**fields: object) -> torch.nn.Module:
    body = {"kind": "stack", "blocks": [BLOCK] * LAYERS}
    tree = {"kind": "decoder", "width": 64, "vocabulary": 50, "body": body, "head": "language", **fields}
    return from_dict(AnyModel, tree).build(seed=3)


def test_a_model_hands_it_to_every_linear_map_and_to_no_table_of_vectors() -> None:
    usual, other = model().state_dict(), model(initial="xavier").state_dict()
    changed = {name for name in usual if not torch.equal(usual[name], other[name])}
    maps = {name for name, weight in usual.items() if weight.dim() == 2 and "embedding" not in name}
    assert changed == maps and len(maps) == 6 * LAYERS + 1


def test_the_usual_one_is_gpt2s() -> None:
    assert model().state_dict().keys() == model(initial="normal").state_dict().keys()
    weights = model(initial={"std": 0.02}).state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in model().state_dict().items())
    down, up = weights["body.blocks.1.ff.down.weight"].std(), weights["body.blocks.1.ff.up.weight"].std()
    assert (up / down).item() == pytest.approx((2 * LAYERS) ** 0.5, rel=0.05)


def test_a_gain_multiplies_whatever_it_is() -> None:
    spec = from_dict(AnyModel, {"kind": "decoder", "width": 64, "vocabulary": 50, "initial": "xavier", "body": BLOCK})
    part = row("anyformer.feedforward", "mlp")(hidden=96)
    plain, doubled = (part.build(Site("ff", 64, gain=gain, initial=spec.initial)) for gain in (1.0, 2.0))
    for module in (plain, doubled):
        module.up.fills["weight"](module.up.weight.data, torch.Generator().manual_seed(1))
    assert torch.equal(doubled.up.weight, 2 * plain.up.weight)
