"""BigBird's attention against transformers' own, inside its model, and the blocks that are random here."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anyformer.core.clock import clock
from anyformer.core.context import Context, Where
from anyformer.core.roles import Mixer
from anyformer.core.spec import Site, from_dict
from anyformer.patterns.base import parse

C, HEADS = 15, 3
NAMES = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}


def run(length: int, lengths: list[int], **fields: Any) -> tuple[Any, Tensor, Tensor, Where]:
    """The second layer's attention in transformers' model, what came in and went out, and where the tokens are."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BigBirdConfig(
        vocab_size=31, hidden_size=C, num_attention_heads=HEADS, num_hidden_layers=2, intermediate_size=11,
        max_position_embeddings=1024, **fields,
    )  # fmt: skip
    model = transformers.BigBirdModel(config).double().eval()
    torch.manual_seed(2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ins: list[Tensor] = []
    outs: list[Tensor] = []
    attention = model.encoder.layer[1].attention
    attention.register_forward_pre_hook(lambda module, inputs: ins.append(inputs[0]))
    attention.output.dense.register_forward_hook(lambda module, inputs, out: outs.append(out))
    ids = torch.randint(1, 31, (len(lengths), length), generator=torch.Generator().manual_seed(0))
    real = torch.arange(length) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        model(ids, attention_mask=real.long())
    return attention, ins[0][:, :length], outs[0][:, :length], clock(ids, real, {}, None, None)[0]


@torch.no_grad()
def assert_agree(attention: Any, x: Tensor, want: Tensor, where: Where, **fields: Any) -> None:
    """Wherever there is a token."""
    mixer = from_dict(Mixer, {"heads": HEADS, "out_bias": True, **fields}).build(Site("mixer", C)).double()
    theirs = attention.state_dict()
    mixer.load_state_dict(
        {name: theirs[f"{NAMES[part]}.{end}"] for name in mixer.state_dict() for part, end in [name.split(".")]}
    )
    assert_close(mixer(x, Context(where))[0][where.real], want[where.real], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "random", "bias", "length", "lengths"),
    [
        (3, 1, True, 29, [29, 28]),  # ten blocks, the last not full
        (3, 1, False, 22, [22]),  # the first length that is not read whole
        (3, 1, True, 21, [21, 4]),  # the last that is
        (2, 4, True, 40, [40, 39]),
        (64, 3, True, 1024, [1001]),  # one of the lengths for which the published code has a plan of its own
    ],
)
def test_blocks_are_those_of_the_published_code(
    size: int, random: int, bias: bool, length: int, lengths: list[int]
) -> None:
    config = {"block_size": size, "num_random_blocks": random, "use_bias": bias}
    fields = {"block_size": size, "random_blocks": random, "bias": bias}
    assert_agree(*run(length, lengths, **config), kind="big_bird", **fields)


def test_original_full_is_plain_attention() -> None:
    assert_agree(*run(29, [29, 13], attention_type="original_full"), kind="softmax", pattern="full", bias=True)


def met(pattern: str, blocks: int, size: int = 1) -> list[set[int]]:
    """The blocks that each block's first token sees."""
    where = Where.start(1, blocks * size)
    seen = parse(pattern).sees(where.queries, where.keys)[0, ::size, ::size]
    return [set(row.nonzero()[:, 0].tolist()) for row in seen]


def test_random_blocks_are_few_and_both_see() -> None:
    rows = met("random_blocks(3, count=2)", 400, 3)
    assert all(block not in row and {block} <= rows[other] for block, row in enumerate(rows) for other in row)
    earlier = [sum(other < block for other in row) for block, row in enumerate(rows)]
    assert earlier[:2] == [0, 1] and max(earlier) == 2
    assert sum(earlier[10:]) > 1.9 * 390  # hardly one is drawn twice


def test_random_blocks_are_drawn_evenly_from_all_that_came_before() -> None:
    rows = met("random_blocks(1, count=4)", 1000)
    places = torch.tensor([(other + 0.5) / block for block, row in enumerate(rows) for other in row if other < block])
    counts = torch.histc(places, 8, 0, 1)
    assert ((counts - len(places) / 8) ** 2 / (len(places) / 8)).sum() < 24.3  # chi-square, 7 degrees, 1 in 1000


def test_seeds_and_numbers_draw_apart() -> None:
    drawn = [met(f"random_blocks(1, count=1, seed={seed})", 500) for seed in range(4)]
    for one, other in pairwise(drawn):
        alike = sum(min(a) == min(b) for a, b in zip(one[100:], other[100:], strict=True) if a and b)
        assert alike < 40
