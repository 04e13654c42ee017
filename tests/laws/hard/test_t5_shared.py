"""T5's bias (Raffel et al. 2020): the first block's table serves all blocks. Shared by Ref: one owner, many users."""

import copy

import pytest
import torch
from harness import assert_lawful, build, gradients, redraw, tokens
from torch.testing import assert_close

from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.core.model import Model
from anyformer.core.overrides import changed
from anyformer.core.roles import AnyModel
from anyformer.core.spec import Ref, adapter, from_dict
from anyformer.positions.t5 import T5

OWNER = "body.blocks.0.mixer.position"
TABLE = f"{OWNER}.weight"
T5_TABLE = T5(buckets=8, furthest=16)


def stack(*positions: T5 | Ref) -> Stack:
    return Stack(blocks=tuple(Block(mixer=Softmax(heads=4, position=position)) for position in positions))


def shared() -> Model:
    return redraw(build(stack(T5_TABLE, Ref(OWNER), Ref(OWNER))))


def test_one_table_is_saved_and_gathers_the_gradients_of_all_users() -> None:
    ours, apart, ids = shared(), build(stack(T5_TABLE, T5_TABLE, T5_TABLE)), tokens()
    assert [name for name in ours.state_dict() if "position" in name] == [TABLE]
    tables = [f"body.blocks.{i}.mixer.position.weight" for i in range(3)]
    apart.load_state_dict(ours.state_dict() | dict.fromkeys(tables, ours.state_dict()[TABLE]))
    assert_close(ours(ids), apart(ids))
    mine, theirs = (gradients(model, lambda model=model: model(ids)) for model in (ours, apart))
    assert all(theirs[name].abs().max() > 1e-6 for name in tables)
    assert_close(mine[TABLE], sum(theirs[name] for name in tables))
    assert_lawful(ours, ids)


@pytest.mark.parametrize("move", [copy.deepcopy, lambda model: copy.deepcopy(model).to(torch.float32)])
def test_copies_and_moves_keep_the_sharing_among_themselves(move) -> None:
    ours = shared()
    moved, before = move(ours), ours(tokens())
    owner, *users = [block.mixer.position for block in moved.body.all]
    assert all(user is owner for user in users) and owner is not ours.body.all[0].mixer.position
    assert_close(moved(tokens()), before.to(next(moved.parameters()).dtype))
    with torch.no_grad():
        owner.weight.add_(1.0 * torch.arange(8)[:, None])
    assert (moved(tokens()) - before).abs().max() > 1e-3
    assert torch.equal(ours(tokens()), before)


def test_a_ref_is_written_and_what_lies_below_it_belongs_to_its_owner() -> None:
    spec = shared().spec
    written = adapter(AnyModel).dump_python(spec, mode="json")
    assert written["body"]["blocks"][1]["mixer"]["position"] == {"ref": OWNER}
    assert from_dict(AnyModel, written) == spec
    with pytest.raises(ValueError, match=f"shared.*set {OWNER}.buckets instead"):
        changed(spec, {"body.blocks.1.mixer.position.buckets": 16})
    wider = changed(spec, {f"{OWNER}.buckets": 16}).build()
    assert wider.body.all[2].mixer.position.weight.shape == (16, 4)
    with pytest.raises(ValueError, match="no part built before"):
        build(stack(Ref("body.blocks.1.mixer.position"), T5_TABLE))
