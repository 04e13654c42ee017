"""Heads and their losses against plain loops: which tokens are read, what is said of them, and what is refused."""

from math import erf, exp, log, sqrt, tanh

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.core.context import Where
from anyformer.core.head import Head
from anyformer.core.layer import Part
from anyformer.core.roles import Embedding
from anyformer.core.roles import Head as AnyHead
from anyformer.core.spec import Site, from_dict
from anyformer.heads import base

WIDTH, VOCABULARY = 6, 11
SAME = {"rtol": 0.0, "atol": 1e-10}
LABELS = ["a", "b", "c"]
POOLS = ["first", "mean", "last", "max"]
REAL = torch.tensor(  # all there, padding right, padding left, holes
    [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0]], dtype=torch.bool
)
TOKEN_HEADS = [
    "tied",
    {"kind": "tied", "bias": True, "scale": 0.7},
    {"kind": "language", "bias": True},
    {"kind": "tag", "labels": LABELS},
    "masked",
    {"kind": "masked", "decoder": "language", "activation": "tanh", "norm": "rms"},
    {"kind": "capped", "cap": 1.5},
    "pretraining",
]
POOLED_HEADS = [
    *({"kind": "classify", "labels": LABELS, "pool": pool, "hidden": pool == "first"} for pool in POOLS),
    *({"kind": "regress", "outputs": 2, "pool": pool, "hidden": pool == "last"} for pool in POOLS),
    {"kind": "mark", "labels": LABELS, "pool": "first", "hidden": True},
]


@torch.no_grad()
def built(spec: object, labels: frozenset[str] = frozenset()) -> Head:
    """A head, and the embedding that it may read backwards, with large weights in float64."""
    at = Site("", WIDTH, vocabulary=VOCABULARY, labels=labels)
    both = Part(at).double()
    both.hold(at, "embedding", from_dict(Embedding, "tokens"))
    both.hold(at, "head", from_dict(AnyHead, spec))
    both.double()
    for number, parameter in enumerate(both.parameters()):
        parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(number))
    head = both.get_submodule("head")
    assert isinstance(head, Head)
    return head


def where_of(real: Tensor) -> Where:
    time = torch.where(real, real.long().cumsum(1) - 1, -1)
    return Where(time, time[..., None], {})


def stream(seed: int = 0, rows: int = 4) -> Tensor:
    return torch.randn(rows, 6, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(7))


def plain_nats(logits: list[float], target: int, smoothing: float) -> float:
    if target == -100:
        return 0.0
    total = sum(exp(x) for x in logits)
    each = [log(total) - x for x in logits]
    return (1 - smoothing) * each[target] + smoothing * sum(each) / len(each)


def plain_pool(tokens: list[list[float]], pool: str) -> list[float]:
    match pool:
        case "first":
            return tokens[0]
        case "last":
            return tokens[-1]
        case "max":
            return [max(column) for column in zip(*tokens, strict=True)]
    return [sum(column) / len(tokens) for column in zip(*tokens, strict=True)]


def plain_linear(x: list[float], weight: Tensor, bias: Tensor | None) -> list[float]:
    added = [0.0] * len(weight) if bias is None else bias.tolist()
    return [sum(a * b for a, b in zip(x, row, strict=True)) + c for row, c in zip(weight.tolist(), added, strict=True)]


def named(head: nn.Module, name: str) -> Tensor:
    return head.get_parameter(name).detach()


def gradients(head: nn.Module, *outs: Tensor, of: Tensor) -> list[tuple[Tensor | None, ...]]:
    wanted = [of, *head.parameters()]
    return [torch.autograd.grad(out.sum(), wanted, allow_unused=True) for out in outs]


# Every head


@pytest.mark.parametrize("spec", TOKEN_HEADS, ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("at_once", [1, 40, 2**24])
def test_the_loss_of_token_heads(spec: object, smoothing: float, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "AT_ONCE", at_once)  # logits at a time: one row, a few, all
    head, h, where = built(spec), stream().requires_grad_(), where_of(REAL)
    targets = drawn(3, 4, 6)
    targets[~REAL], targets[0, 2] = -100, -100
    logits, losses = head(h, where), head.loss(h, targets, where, smoothing)
    rows = zip(logits.flatten(0, 1).tolist(), targets.flatten().tolist(), strict=True)
    expected = torch.tensor([plain_nats(*row, smoothing) for row in rows], dtype=torch.float64).view(4, 6)
    assert_close(losses, expected, **SAME)
    known = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-100, label_smoothing=smoothing
    )
    assert_close(losses.flatten(), known, **SAME)
    for ours, theirs in zip(*gradients(head, losses, known, of=h), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_close(ours, theirs, **SAME)


@pytest.mark.parametrize("spec", POOLED_HEADS, ids=str)
def test_pooled_heads_read_real_tokens_alone(spec: dict) -> None:
    head, h = built(spec), stream()
    out = head(h, where_of(REAL))
    for row in range(4):
        x = plain_pool(h[row, REAL[row]].tolist(), spec["pool"])
        if spec["hidden"]:
            dense = plain_linear(x, named(head, "pooler.dense.weight"), named(head, "pooler.dense.bias"))
            x = [tanh(value) for value in dense]
        expected = plain_linear(x, named(head, "out.weight"), named(head, "out.bias"))
        assert_close(out[row].tolist(), expected, **SAME)
    assert not torch.equal(out, head(h, where_of(torch.ones_like(REAL))))


@pytest.mark.parametrize("spec", [*POOLED_HEADS, "sentence", "span"], ids=str)
def test_what_stands_in_padding_is_nothing(spec: object) -> None:
    head, where, found = built(spec), where_of(REAL), []
    for fill in (0.0, 1e6):
        h = stream().masked_fill(~REAL[..., None], fill).requires_grad_()
        if spec == "span":
            out = head.loss(h, torch.tensor([[1, 4], [0, 3], [2, -100], [3, 4]]), where, 0.2)
        else:
            out = head(h, where)
        found.append((out, gradients(head, out, of=h)[0]))
    (one, theirs), (other, ours) = found
    assert_close(one, other, **SAME)
    assert theirs[0] is not None and not theirs[0][~REAL].any()
    for a, b in zip(ours, theirs, strict=True):
        if a is not None and b is not None:
            assert_close(a, b, **SAME)


@pytest.mark.parametrize("pool", POOLS)
def test_a_row_without_tokens_is_zero(pool: str) -> None:
    head, h = built({"kind": "regress", "pool": pool}), stream(rows=1).requires_grad_()
    out = head(h, where_of(torch.zeros(1, 6, dtype=torch.bool)))
    assert_close(out[0], named(head, "out.bias"), **SAME)
    (gradient,) = torch.autograd.grad(out.sum(), h)
    assert not gradient.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_of_classes(smoothing: float) -> None:
    head, h, where = built(POOLED_HEADS[0]), stream(), where_of(REAL)
    targets = torch.tensor([2, 0, -100, 1])
    rows = zip(head(h, where).tolist(), targets.tolist(), strict=True)
    assert_close(
        head.loss(h, targets, where, smoothing).tolist(), [plain_nats(*row, smoothing) for row in rows], **SAME
    )


def test_the_loss_of_numbers() -> None:
    head, h, where = built({"kind": "regress", "outputs": 2}), stream(), where_of(REAL)
    targets = torch.tensor([[0.5, -2.0], [3.0, -100.0], [0.0, 0.0], [1.0, 9.0]], dtype=torch.float64)
    pairs = zip(head(h, where).tolist(), targets.tolist(), strict=True)
    expected = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) / 2 for pair in pairs]
    assert_close(head.loss(h, targets, where).tolist(), expected, **SAME)
    single = built("regress")
    losses = single.loss(h, targets[:, 0], where)  # one number a row needs no axis of its own
    assert_close(losses, (single(h, where)[:, 0] - targets[:, 0]).square(), **SAME)


def test_the_loss_of_marks() -> None:
    head, h, where = built({"kind": "mark", "labels": LABELS}), stream(), where_of(REAL)
    targets = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    pairs = zip(head(h, where).tolist(), targets.tolist(), strict=True)
    # -log of sigmoid(x) or of 1 - sigmoid(x), which is sigmoid(-x)
    expected = [sum(log(1 + exp(-x if has else x)) for x, has in zip(*pair, strict=True)) / 3 for pair in pairs]
    assert_close(head.loss(h, targets, where).tolist(), expected, **SAME)
    with pytest.raises(ValueError, match="smoothing is of classes that exclude each other"):
        head.loss(h, targets, where, 0.1)
    with pytest.raises(ValueError, match=r"targets must be \(4, 3\)"):
        head.loss(h, targets[:, 0], where)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_of_spans(smoothing: float) -> None:
    head, h = built("span"), stream()
    targets = torch.tensor([[1, 4], [-100, 3], [2, 2], [-100, -100]])
    logits = head(h, where_of(REAL))
    assert_close(logits, F.linear(h, named(head, "out.weight"), named(head, "out.bias")), **SAME)
    losses = head.loss(h, targets, where_of(REAL), smoothing)
    for row in range(4):
        place = REAL[row].nonzero().flatten().tolist()
        wanted = [-100 if at == -100 else place.index(at) for at in targets[row].tolist()]
        both = [plain_nats(logits[row, place, side].tolist(), wanted[side], smoothing) for side in (0, 1)]
        assert_close(losses[row].item(), sum(both) / 2, **SAME)


def test_sentences_are_vectors_of_length_one() -> None:
    h, where = stream(), where_of(REAL)
    whole = built({"kind": "sentence", "unit": False})(h, where)
    for row in range(4):
        assert_close(whole[row].tolist(), plain_pool(h[row, REAL[row]].tolist(), "mean"), **SAME)
    assert_close(built("sentence")(h, where), whole / whole.norm(dim=1, keepdim=True), **SAME)
    head = built({"kind": "sentence", "size": 4, "unit": False})
    assert_close(head(h, where), whole @ named(head, "out.weight").T, **SAME)


def test_the_head_for_masked_tokens() -> None:
    """Dense, the exact GELU, LayerNorm with eps 1e-12, the embedding and a bias: as Devlin et al. publish it."""
    head, h = built("masked"), stream(rows=1) * 3
    logits = head(h, where_of(torch.ones(1, 6, dtype=torch.bool)))
    for token in range(6):
        x = plain_linear(h[0, token].tolist(), named(head, "dense.weight"), named(head, "dense.bias"))
        x = [value * (1 + erf(value / sqrt(2))) / 2 for value in x]
        mean = sum(x) / len(x)
        spread = sqrt(sum((value - mean) ** 2 for value in x) / len(x) + 1e-12)
        scale, shift = named(head, "norm.weight").tolist(), named(head, "norm.bias").tolist()
        x = [g * (value - mean) / spread + b for value, g, b in zip(x, scale, shift, strict=True)]
        table = head.get_submodule("decoder").table.weight.detach()
        assert_close(logits[0, token].tolist(), plain_linear(x, table, named(head, "decoder.bias")), **SAME)


def test_heads_of_one_map() -> None:
    h, where = stream(), where_of(REAL)
    for spec in ({"kind": "language", "bias": True}, "language", {"kind": "tag", "labels": LABELS}):
        head = built(spec)
        bias = dict(head.named_parameters()).get("out.bias")
        assert_close(head(h, where), F.linear(h, named(head, "out.weight"), bias), **SAME)
    for scale in (1.0, 0.7):
        head = built({"kind": "tied", "bias": True, "scale": scale})
        assert_close(head(h, where), scale * h @ vars(head)["table"].weight.T + named(head, "bias"), **SAME)


def test_two_heads_side_by_side() -> None:
    head, h, where = built("pretraining"), stream(), where_of(REAL)
    tokens, pair = head.get_submodule("tokens"), head.get_submodule("pair")
    assert torch.equal(head(h, where), tokens(h, where))
    assert pair(h, where).shape == (4, 2) and not head.pools
    weight, bias = named(head, "pair.pooler.dense.weight"), named(head, "pair.pooler.dense.bias")
    first = torch.stack([h[0, 0], h[1, 0], h[2, 2], h[3, 1]])  # the first real token of each row
    hidden = F.linear(first, weight, bias).tanh()
    assert_close(pair(h, where), F.linear(hidden, named(head, "pair.out.weight"), named(head, "pair.out.bias")), **SAME)


TARGETS = {
    "regress": torch.tensor([[0.5, -1.0]] * 4).double(),
    "mark": torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
    "span": torch.tensor([[1, 3], [0, 2], [4, 5], [1, 3]]),
}


@pytest.mark.parametrize("spec", [*TOKEN_HEADS, *POOLED_HEADS, "span"], ids=str)
def test_the_slope_of_losses(spec: object) -> None:
    head, where = built(spec), where_of(REAL)
    kind = spec["kind"] if isinstance(spec, dict) else spec
    targets = TARGETS[kind] if kind in TARGETS else drawn(3, 4) if head.pools else drawn(3, 4, 6)
    assert gradcheck(
        lambda h: head.loss(h, targets, where, 0.0 if kind in ("regress", "mark") else 0.1), stream().requires_grad_()
    )


@pytest.mark.parametrize("spec", [*TOKEN_HEADS, *POOLED_HEADS, "span"], ids=str)
def test_losses_are_float32_at_least(spec: object) -> None:
    head, h, where = built(spec).bfloat16(), stream().bfloat16(), where_of(REAL)
    for part in head.modules():
        if "table" in vars(part):
            vars(part)["table"].bfloat16()
    kind = spec["kind"] if isinstance(spec, dict) else spec
    targets = TARGETS[kind] if kind in TARGETS else drawn(3, 4) if head.pools else drawn(3, 4, 6)
    assert head(h, where).dtype == torch.bfloat16
    assert head.loss(h, targets.float() if kind == "regress" else targets, where).dtype == torch.float32


@pytest.mark.parametrize("kind", ["classify", "tag", "regress"])
def test_dropout_stands_before_the_last_map(kind: str) -> None:
    fields = {} if kind == "regress" else {"labels": LABELS}
    head, h, where = built({"kind": kind, "dropout": 1.0, **fields}), stream(), where_of(REAL)
    assert_close(head(h, where), named(head, "out.bias").expand_as(head(h, where)), **SAME)
    without = built({"kind": kind, **fields})
    assert torch.equal(head.eval()(h, where), without(h, where))


# What is refused


def refusal(spec: object, labels: frozenset[str] = frozenset()) -> str:
    with pytest.raises(ValueError) as caught:
        built(spec, labels)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_classes_must_be_known_and_differ(kind: str) -> None:
    assert refusal(kind) == "head.labels: the classes are not known; training sets them from the data"
    assert "must differ; came a, b, a" in refusal({"kind": kind, "labels": ["a", "b", "a"]})
    assert "at least 1" in refusal({"kind": kind, "labels": []})


@pytest.mark.parametrize("spec", [*POOLED_HEADS[3:5], "sentence", "span", "pretraining"], ids=str)
def test_rows_of_several_texts_are_refused(spec: object) -> None:
    message = refusal(spec, frozenset({"document", "start"}))
    assert message.startswith("head") and "'document'" in message and "take" in message


def test_a_masked_head_decodes_tokens() -> None:
    assert "`tied` and `language`" in refusal({"kind": "masked", "decoder": {"kind": "classify", "labels": LABELS}})
    pair = {"kind": "classify", "labels": LABELS}
    assert "head.tokens" in refusal({"kind": "pretraining", "tokens": pair})


def test_losses_that_make_no_sense() -> None:
    h, where = stream(), where_of(REAL)
    with pytest.raises(ValueError, match=r"head: a vector has no loss by itself"):
        built("sentence").loss(h, drawn(3, 4), where)
    with pytest.raises(ValueError, match=r"head: smoothing is of classes"):
        built("regress").loss(h, torch.zeros(4), where, 0.1)
    with pytest.raises(ValueError, match=r"head: targets must be \(4, 2\); came \(4,\)"):
        built({"kind": "regress", "outputs": 2}).loss(h, torch.zeros(4), where)
    with pytest.raises(ValueError, match=r"head: targets must be \(4, 2\); came \(4, 6\)"):
        built("span").loss(h, drawn(3, 4, 6), where)
