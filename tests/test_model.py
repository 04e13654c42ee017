"""What a model refuses before it computes, its loss, and how it is built."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.testing import assert_close

from anyformer.core.context import Source, Where
from anyformer.core.model import Model
from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.core.tape import Tape
from anyformer.heads import base

VOCABULARY = 13
IDS = torch.arange(14).view(2, 7) * 5 % VOCABULARY
SAME = {"rtol": 0.0, "atol": 1e-10}


def stack(pattern: str = "causal", **mixer: object) -> dict:
    block = {"kind": "block", "mixer": {"kind": "softmax", "heads": 2, "pattern": pattern, **mixer}}
    return {"kind": "stack", "blocks": [block]}


def declared(**fields: object) -> dict:
    return {"kind": "decoder", "width": 8, "vocabulary": VOCABULARY, "body": stack(), **fields}


def build(seed: int = 0, **fields: object) -> Model:
    return from_dict(AnyModel, declared(**fields)).build(seed=seed, dtype=torch.float64)


def refusal(call: Callable[[], object]) -> str:
    """The one line of the ValueError."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ids


@pytest.mark.parametrize("ids", [IDS[0], IDS[None], IDS.double(), IDS > 3])
def test_ids_are_whole_numbers_in_rows(ids: Tensor) -> None:
    message = refusal(lambda: build()(ids))
    assert "(B, T)" in message and str(tuple(ids.shape)) in message and str(ids.dtype) in message


@pytest.mark.parametrize("wrong", [-1, -100, VOCABULARY, 50_000])
def test_an_id_outside_the_vocabulary_is_named_with_its_place(wrong: int) -> None:
    model, ids = build(), IDS.clone()
    ids[1, 4] = wrong
    for call in (lambda: model(ids), lambda: model.loss(ids, IDS), lambda: model(ids, model.init_state(2))):
        message = refusal(call)
        assert f"id {wrong} at row 1, place 4" in message and "0 to 12" in message


def test_an_id_outside_the_sources_vocabulary_is_named() -> None:
    sides = {"encoder": stack("full"), "decoder": stack(), "source_embedding": "tokens", "source_vocabulary": 5}
    tree = {key: value for key, value in declared(kind="encoder_decoder", **sides).items() if key != "body"}
    model = from_dict(AnyModel, tree).build()
    model.encode(torch.tensor([[4, 0]]))
    assert "id 5 at row 0, place 1: the vocabulary has the ids 0 to 4" in refusal(
        lambda: model.encode(torch.tensor([[4, 5]]))
    )


def test_a_source_of_other_tokens_has_an_embedding_of_its_own() -> None:
    sides = {"encoder": stack("full"), "decoder": stack(), "source_vocabulary": 5}
    tree = {key: value for key, value in declared(kind="encoder_decoder", **sides).items() if key != "body"}
    message = refusal(lambda: from_dict(AnyModel, tree).build())
    assert "5 tokens cannot share a table of 13" in message and "source_embedding: tokens" in message
    from_dict(AnyModel, tree | {"source_vocabulary": VOCABULARY}).build()


def test_int32_ids_are_ids() -> None:
    assert torch.equal(build()(IDS.int()), build()(IDS))


# padding, labels, coordinates


@pytest.mark.parametrize("lengths", [[8, 3], [-1, 3], [3], [3, 3, 3]])
def test_lengths_out_of_range(lengths: list[int]) -> None:
    message = refusal(lambda: build()(IDS, lengths=torch.tensor(lengths)))
    assert "2 numbers from 0 to 7" in message and str(lengths) in message


def test_padding_is_told_once_and_in_full() -> None:
    model, lengths, real = build(), torch.tensor([7, 3]), torch.ones(2, 7, dtype=torch.bool)
    assert "not both" in refusal(lambda: model(IDS, lengths=lengths, real=real))
    assert "(2, 6)" in refusal(lambda: model(IDS, real=real[:, :6]))
    assert "int64" in refusal(lambda: model(IDS, real=real.long()))
    assert "'middle'" in refusal(lambda: model(IDS, lengths=lengths, side="middle"))


def test_labels_must_be_declared_and_cover_the_tokens() -> None:
    model = build(labels=["document"])
    message = refusal(lambda: model(IDS, labels={"documnet": IDS}))
    assert "documnet" in message and "['document']" in message
    assert "(2, 6)" in refusal(lambda: model(IDS, labels={"document": IDS[:, :6]}))


def test_coordinates_must_have_the_declared_rank() -> None:
    model = build(rank=2)
    assert "(2, 7, 2)" in refusal(lambda: model(IDS))
    assert "(2, 7, 1)" in refusal(lambda: model(IDS, coords=torch.zeros(2, 7, 1, dtype=torch.long)))
    assert model(IDS, coords=torch.zeros(2, 7, 2, dtype=torch.long)).shape == (2, 7, VOCABULARY)
    assert "(2, 7, 1)" in refusal(lambda: build()(IDS, coords=torch.zeros(2, 7, dtype=torch.long)))


# states


def test_a_full_state_says_its_number() -> None:
    model = build()
    with torch.no_grad():
        _, state = model(IDS, model.init_state(2, capacity=9))
        message = refusal(lambda: model(IDS[:, :3], state))
        assert "9 tokens" in message and "needs 10" in message
        model(IDS[:, :2], state)  # the refusal left the state good for a call


def test_a_full_state_counts_real_tokens() -> None:
    """The host's count is an upper bound; padding is no reason to refuse."""
    model = build()
    with torch.no_grad():
        _, state = model(IDS, model.init_state(2, capacity=9), lengths=torch.tensor([2, 3]))
        _, state = model(IDS, state, lengths=torch.tensor([7, 6]))
        assert "needs 10" in refusal(lambda: model(IDS[:, :1], state))


@pytest.mark.parametrize("capacity", [None, 9])
def test_a_state_of_another_batch(capacity: int | None) -> None:
    model = build()
    with torch.no_grad():
        message = refusal(lambda: model(IDS, model.init_state(3, capacity=capacity)))
    assert "3 rows" in message and "has 2" in message


def test_more_forgotten_than_slack() -> None:
    model = build()
    with torch.no_grad():
        _, state = model(IDS, model.init_state(2, capacity=9, slack=3))
        message = refusal(lambda: model.rewind(state, torch.tensor([3, 7])))
        assert "4 tokens" in message and "slack is 3" in message
        state = model.rewind(state, torch.tensor([4, 7]))
        assert "4 tokens" in refusal(lambda: model.rewind(state, torch.tensor([3, 7])))  # over all calls together


def test_an_in_place_state_follows_no_gradients_and_serves_once() -> None:
    model = build()
    state = model.init_state(2, capacity=9)
    assert "torch.no_grad()" in refusal(lambda: model(IDS, state))
    with torch.no_grad():
        model(IDS, state)
        assert "fork()" in refusal(lambda: model(IDS[:, :1], state))
    model(IDS, model.init_state(2, capacity=9, inplace=False))[0].sum().backward()  # this kind does


@pytest.mark.parametrize("given", [{"batch": 0}, {"batch": 2, "capacity": 0}, {"batch": 2, "slack": -1}])
def test_sizes_of_states(given: dict) -> None:
    assert "at least" in refusal(lambda: build().init_state(**given))


def test_a_state_written_in_place_needs_a_capacity() -> None:
    assert "capacity" in refusal(lambda: build().init_state(2, inplace=True))


def test_an_encoder_cannot_be_cut() -> None:
    model = build(kind="encoder", body=stack("full"))
    message = refusal(lambda: model.init_state(2))
    assert message.startswith("body.blocks.0.mixer: ") and "full" in message and "without a state" in message


# texts longer than a learned table


LEARNED = {"position": {"kind": "learned", "length": 7, "first": 2}}


def test_a_text_longer_than_its_positions_is_refused() -> None:
    model, longer = build(**LEARNED), torch.cat([IDS, IDS[:, :1]], 1)
    for call in (lambda: model(longer), lambda: model.loss(longer, longer), lambda: model(longer, model.init_state(2))):
        message = refusal(call)
        assert "8 tokens" in message and "7" in message
    assert model(IDS).shape == model(longer, lengths=torch.tensor([7, 3]))[:, :7].shape  # padding takes no position


def test_a_text_that_grows_beyond_its_positions_is_refused() -> None:
    model = build(**LEARNED)
    with torch.no_grad():
        for capacity in (None, 20):
            _, state = model(IDS[:, :6], model.init_state(2, capacity=capacity), lengths=torch.tensor([3, 6]))
            _, state = model(IDS[:, :4], state, lengths=torch.tensor([4, 1]))
            assert "8 tokens" in refusal(lambda state=state: model(IDS[:, :1], state))


def test_positions_count_from_the_start_of_each_document() -> None:
    model = build(**LEARNED, labels=["document"], body=stack("causal & documents"))
    ids, document = torch.cat([IDS, IDS], 1), torch.tensor([[0] * 7 + [1] * 7] * 2)
    assert_close(model(ids, labels={"document": document})[:, 7:], model(IDS), **SAME)
    assert "14 tokens" in refusal(lambda: model(ids))


def test_given_coordinates_are_what_is_looked_up() -> None:
    model, coords = build(**LEARNED), torch.arange(7).expand(2, 7)[..., None]
    assert torch.equal(model(IDS, coords=coords), model(IDS))
    assert "8 tokens" in refusal(lambda: model(IDS, coords=coords + 1))


def test_a_source_longer_than_its_positions_is_refused() -> None:
    sides = {"encoder": stack("full"), "decoder": stack(), "source_position": {"kind": "learned", "length": 5}}
    tree = {key: value for key, value in declared(kind="encoder_decoder", **sides).items() if key != "body"}
    model = from_dict(AnyModel, tree).build()
    assert "7 tokens" in refusal(lambda: model.encode(IDS))
    model.encode(IDS, lengths=torch.tensor([5, 2]))


# the loss


def gradients(model: Model, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("head", ["tied", {"kind": "language", "bias": True}])
@pytest.mark.parametrize("at_once", [1, 3 * VOCABULARY, 2**24])
def test_the_loss_is_plain_cross_entropy(monkeypatch: pytest.MonkeyPatch, head: object, at_once: int) -> None:
    monkeypatch.setattr(base, "AT_ONCE", at_once)  # logits at a time: one row, three rows, all
    model, targets = build(head=head), (IDS * 3 + 1) % VOCABULARY
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5, generator=torch.Generator().manual_seed(weight.numel()))
    targets[0, 2], targets[1, 5:] = -100, -100
    logits = model(IDS)
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-100).view(2, 7)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert_close(model.losses(IDS, targets), each, **SAME)
    assert not each[targets == -100].any()
    loss = model.loss(IDS, targets)
    assert_close(loss, expected, **SAME)
    for ours, theirs in zip(gradients(model, loss), gradients(model, expected), strict=True):
        assert_close(ours, theirs, **SAME)


def test_a_loss_over_nothing_is_zero() -> None:
    model = build()
    loss = model.loss(IDS, torch.full_like(IDS, -100))
    assert loss == 0 and not any(grad.any() for grad in gradients(model, loss))


def test_the_loss_hears_of_padding_and_labels() -> None:
    model, lengths = build(labels=["document"], body=stack("causal & documents")), torch.tensor([7, 4])
    document, targets = torch.tensor([[0] * 3 + [1] * 4] * 2), IDS.roll(-1, 1)
    given = {"labels": {"document": document}, "lengths": lengths}
    plain = F.cross_entropy(model(IDS, **given).flatten(0, 1), targets.flatten())
    assert_close(model.loss(IDS, targets, **given), plain, **SAME)
    assert (model.loss(IDS, targets, **given) - model.loss(IDS, targets)).abs() > 1e-9


def test_without_a_head_there_is_no_loss() -> None:
    model = build(kind="encoder", body=stack("full"))
    message = refusal(lambda: model.loss(IDS, IDS))
    assert "head" in message and "tied" in message


def test_smoothing_is_torchs_label_smoothing() -> None:
    model, targets = build(), (IDS * 3 + 1) % VOCABULARY
    targets[1, 3:] = -100
    flat = model(IDS).flatten(0, 1), targets.flatten()
    assert_close(model.loss(IDS, targets, smoothing=0.2), F.cross_entropy(*flat, label_smoothing=0.2), **SAME)
    each = F.cross_entropy(*flat, reduction="none", label_smoothing=0.2).view(2, 7)
    assert_close(model.losses(IDS, targets, smoothing=0.2), each, **SAME)
    assert not each[targets == -100].any() and (each - model.losses(IDS, targets)).abs().max() > 1e-6


ENCODER: dict = {"kind": "encoder", "body": stack("full")}
CLASSES = {"kind": "classify", "labels": ["a", "b", "c"], "pool": "mean"}


def test_the_loss_of_rows() -> None:
    model, lengths, targets = build(**ENCODER, head=CLASSES), torch.tensor([7, 4]), torch.tensor([2, 1])
    logits = model(IDS, lengths=lengths)
    assert logits.shape == (2, 3)
    assert_close(logits[1], model(IDS[1:, :4])[0], **SAME)
    assert_close(model.loss(IDS, targets, lengths=lengths), F.cross_entropy(logits, targets), **SAME)
    one = torch.tensor([-100, 1])
    assert_close(model.loss(IDS, one, lengths=lengths), F.cross_entropy(logits[1:], one[1:]), **SAME)


def test_the_mean_is_over_rows_that_have_a_target() -> None:
    span, targets = build(**ENCODER, head="span"), torch.tensor([[-100, -100], [2, 3]])
    losses = span.losses(IDS, targets)
    assert losses[0] == 0 and losses[1] > 0
    assert_close(span.loss(IDS, targets), losses[1], **SAME)
    numbers, said = build(**ENCODER, head="regress"), torch.tensor([[-100.0], [1.0]])  # -100 is a number like others
    assert_close(numbers.loss(IDS, said), numbers.losses(IDS, said).mean(), **SAME)


def test_a_head_that_reads_the_whole_text_takes_no_state() -> None:
    message = refusal(lambda: build(head=CLASSES).init_state(2))
    assert message.startswith("head: this head reads the whole text at once") and "without a state" in message


def test_a_reader_stands_in_the_heads_place() -> None:
    model, lengths = build(), torch.tensor([7, 4])
    h = model.read(IDS, lambda h, where: h * where.real[..., None], lengths=lengths)
    assert not h[1, 4:].any()
    assert_close(h[0] @ model.get_parameter("embedding.weight").T, model(IDS)[0], **SAME)
    pair = build(**ENCODER, head="pretraining")
    head, targets, followed = pair.get_submodule("head"), IDS.roll(1, 1), torch.tensor([0, 1])

    def both(h: Tensor, where: Where) -> tuple[Tensor, Tensor]:
        return head.loss(h, targets, where), head.pair.loss(h, followed, where)

    tokens, pairs = pair.read(IDS, both, lengths=lengths)
    assert_close(tokens, pair.losses(IDS, targets, lengths=lengths), **SAME)
    assert pairs.shape == (2,) and bool((pairs > 0).all())


def test_losses_compile_in_one_graph() -> None:
    model, targets = build(head={"kind": "language"}), (IDS * 3 + 1) % VOCABULARY
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model.step, backend="aot_eager", fullgraph=True, dynamic=False)
    for other in (targets, targets.flip(0), targets * 0):
        out, _ = compiled(IDS, reader=lambda h, where, other=other: model.head.loss(h, other, where, 0.1))
        assert_close(out, model.losses(IDS, other, smoothing=0.1), **SAME)
    assert counters["stats"]["unique_graphs"] == 1


# the entrance


def entrance(model: Model, ids: Tensor = IDS, **given: Any) -> Tensor:
    """What the body reads."""
    tape = Tape(record=["embedding"])
    model(ids, tape=tape, **given)
    return tape["embedding"]


@torch.no_grad()
def redrawn(model: Model) -> Model:
    for number, weight in enumerate(model.parameters()):
        weight.normal_(std=0.5, generator=torch.Generator().manual_seed(number))
    return model


def test_the_sum_is_normalised() -> None:
    model = redrawn(build(**LEARNED, norm={"kind": "layer", "eps": 0.1}))
    named = {name: weight.detach() for name, weight in model.named_parameters()}
    x = named["embedding.weight"][IDS] + named["position.weight"][2:]
    assert_close(entrance(model), F.layer_norm(x, (8,), named["norm.weight"], named["norm.bias"], 0.1), **SAME)


def test_dropout_comes_after_the_norm_and_in_training_alone() -> None:
    fields = {**LEARNED, "norm": "layer"}
    model, without = redrawn(build(**fields, dropout=0.5)), redrawn(build(**fields))
    torch.manual_seed(0)
    x, plain = entrance(model), entrance(without)
    kept = x != 0
    assert 0.3 < kept.double().mean() < 0.7
    assert_close(x[kept], 2 * plain[kept], **SAME)
    assert torch.equal(entrance(model.eval()), plain)


def test_the_source_has_an_entrance_of_its_own() -> None:
    parts = {"encoder": "mlp", "decoder": {**stack(), "norm": "no_norm"}, "embedding": {"kind": "tokens", "scale": 3.0}}
    norms = {"norm": "rms", "source_norm": {"kind": "layer", "eps": 0.1}, "source_position": "sinusoidal"}
    tree = {key: value for key, value in declared(kind="encoder_decoder", **parts, **norms).items() if key != "body"}
    model = redrawn(from_dict(AnyModel, tree | {"dropout": 0.5}).build(dtype=torch.float64)).eval()
    source, where = model.enter_source, Where.start(2, 7)
    x = 3 * model.get_parameter("embedding.weight")[IDS]
    norm = model.get_submodule("source_norm")
    expected = F.layer_norm(source.position(x, where), (8,), norm.weight, norm.bias, 0.1)
    assert_close(source(IDS, where), expected, **SAME)
    given = entrance(model, sources={"source": Source(expected, where)})
    assert_close(given, F.rms_norm(x, (8,), model.get_parameter("norm.weight"), 1e-6), **SAME)
    model.train()
    assert (source(IDS, where) == 0).any() and (model.enter(IDS, where) == 0).any()


SEGMENTS = {"labels": ["segment"], "position": {"kind": "segments", "count": 3}}


def test_a_vector_per_value_of_a_label() -> None:
    model, segment = redrawn(build(**SEGMENTS)), torch.tensor([[0, 0, 1, 1, 2, 2, 2]] * 2)
    word, table = model.get_parameter("embedding.weight"), model.get_parameter("position.weight")
    assert_close(entrance(model, labels={"segment": segment}), word[IDS] + table[segment], **SAME)
    assert_close(entrance(model), word[IDS] + table[0], **SAME)  # a token of which nothing is said has 0


def test_several_schemes_are_summed() -> None:
    schemes = [
        {"kind": "learned", "length": 9},
        {"kind": "segments", "label": "role"},
        {"kind": "learned", "length": 8},
    ]
    model = redrawn(build(labels=["role"], position={"kind": "several", "schemes": schemes}))
    named = {name: weight.detach() for name, weight in model.named_parameters()}
    role = IDS % 2
    places = named["position.schemes.0.weight"][:7] + named["position.schemes.2.weight"][:7]
    x = named["embedding.weight"][IDS] + places + named["position.schemes.1.weight"][role]
    assert_close(entrance(model, labels={"role": role}), x, **SAME)
    assert model.longest == 8
    longer = torch.cat([IDS, IDS[:, :2]], 1)
    assert "9 tokens" in refusal(lambda: model(longer))


def test_labels_that_segments_cannot_read() -> None:
    message = refusal(lambda: build(position="segments"))
    assert message.startswith("position: reads the label 'segment'; the model declares []") and "add it" in message
    model, segment = build(**SEGMENTS), IDS * 0
    segment[1, 3:] = 3
    message = refusal(lambda: model(IDS, labels={"segment": segment}))
    assert message == "position: the label 'segment' has the values 0 to 2; came 0 to 3"
    model(IDS, labels={"segment": segment}, lengths=torch.tensor([7, 3]))  # padding may carry anything


def test_only_schemes_of_embeddings_are_summed() -> None:
    message = refusal(lambda: build(position={"kind": "several", "schemes": ["sinusoidal", "rotary"]}))
    assert message.startswith("position.schemes.1: acts on queries and keys")


# building


def test_a_seed_makes_a_model() -> None:
    first, again, other = build(3), build(3), build(4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.get_parameter("embedding.weight"), other.get_parameter("embedding.weight"))
    torch.manual_seed(5)
    assert torch.equal(build(3)(IDS), first(IDS))  # the global seed has no say


@pytest.mark.parametrize(
    "swap",
    [{"body": stack(position="alibi")}, {"body": stack(kv_heads=1)}, {"position": "sinusoidal"}, {"head": "language"}],
)
def test_a_swapped_part_leaves_the_rest_equal(swap: dict) -> None:
    one, other = build().state_dict(), build(**swap).state_dict()
    shared = [name for name in one if name in other and one[name].shape == other[name].shape]
    assert len(shared) >= len(one) - 2
    assert all(torch.equal(one[name], other[name]) for name in shared)


def test_weights_of_one_shape_differ_from_each_other() -> None:
    named = build().state_dict()
    assert not torch.equal(named["body.blocks.0.mixer.q.weight"], named["body.blocks.0.mixer.k.weight"])


def test_dtypes_start_from_the_same_numbers() -> None:
    tree = declared()
    exact, half = (from_dict(AnyModel, tree).build(dtype=dtype) for dtype in (torch.float64, torch.bfloat16))
    for name, value in exact.state_dict().items():
        assert torch.equal(value.bfloat16(), half.state_dict()[name])


def test_a_model_knows_its_declaration() -> None:
    model = build()
    assert from_dict(AnyModel, model.spec.to_dict()) == model.spec
    assert model.spec == from_dict(AnyModel, declared())


@pytest.mark.parametrize("shape", [(1, 0), (0, 3)])
def test_a_call_has_a_row_and_a_token(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one row and one token"):
        build()(torch.zeros(shape, dtype=torch.long))
