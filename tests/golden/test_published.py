"""Every published model type: its numbers, cut, padded, written again; one line a type and a check.

`tests/golden/store.py` makes what is stored here of the reference library, of the version that constraints.txt names.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
from golden.cases import CASES
from golden.published import (
    CLOSE,
    Case,
    Reference,
    asked,
    enters,
    exact,
    exported,
    labels,
    made,
    opened,
    ours,
    quiet,
    same,
    stored,
    write,
)
from torch import Tensor

from anyformer.architectures.encoder import Encoder
from anyformer.architectures.encoder_decoder import EncoderDecoderModel
from anyformer.core.context import Source
from anyformer.core.tables import table
from anyformer.models.published import declared

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
texts = pytest.mark.parametrize(
    "case", [case for case in CASES if "pixel_values" not in case.style.draw(case.config)], ids=lambda case: case.name
)


@cache
def built(case: Case) -> Reference:
    return made(case)


def test_every_type_is_held_to_this() -> None:
    assert {case.model_type for case in CASES} == set(table("anyformer.models"))
    assert len({case.name for case in CASES}) == len(CASES)


@every
@torch.no_grad()
def test_numbers_without_the_reference(case: Case) -> None:
    """Logits and hidden states of what is stored."""
    reference = stored(case)
    same(case.style.ask(ours(case, reference), reference.inputs), reference.answer)


@every
@torch.no_grad()
def test_numbers_beside_the_reference(case: Case) -> None:
    """The same, with the library computing them now."""
    reference = built(case)
    same(case.style.ask(ours(case, reference), reference.inputs), reference.answer)


@texts
@torch.no_grad()
def test_cut_into_calls(case: Case) -> None:
    """Piece by piece with a state the logits are those of the reference's whole text; who needs it whole refuses."""
    reference = stored(case)
    model, inputs = ours(case, reference), reference.inputs
    ids = inputs["decoder_input_ids"] if "decoder_input_ids" in inputs else inputs["input_ids"]
    two = isinstance(model, EncoderDecoderModel)
    sources = {"source": model.encode(enters(inputs))} if two else None
    if case.whole or isinstance(model.spec, Encoder):  # it sees both ways, or pools
        with pytest.raises(ValueError, match="cannot be cut into calls"):
            model.init_state(len(ids), sources=sources)
        return
    state = model.init_state(len(ids), sources=sources)
    outs = []
    for part in ids.split([3, 1, ids.shape[1] - 4], 1):
        out, state = model(part, state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), reference.answer.out, **CLOSE)


def padded_source(model: EncoderDecoderModel, ids: Tensor, side: str, more: int = 3) -> Source:
    """Each text as it is, and then each again with more tokens, beside which the first ones are padded."""
    if ids.is_floating_point():  # sound comes whole
        return model.encode(ids.repeat(2, 1, 1))
    pad, longer = ids.new_full((len(ids), more), 1), ids.new_full((len(ids), more), 6)
    padded = torch.cat([pad, ids] if side == "left" else [ids, pad], 1)
    lengths = torch.tensor([ids.shape[1]] * len(ids) + [ids.shape[1] + more] * len(ids))
    return model.encode(torch.cat([padded, torch.cat([ids, longer], 1)]), lengths, side)


@texts
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padded_in_a_batch(case: Case, side: str) -> None:
    """A row beside longer ones is what the reference makes of it alone."""
    reference = stored(case)
    model, inputs, answer = ours(case, reference), reference.inputs, reference.answer.out
    ids = inputs["decoder_input_ids"] if "decoder_input_ids" in inputs else inputs["input_ids"]
    length, more = ids.shape[1], 4
    pad = ids.new_full((len(ids), more), 1)
    padded = torch.cat([pad, ids] if side == "left" else [ids, pad], 1)
    longer = torch.cat([ids, ids.new_full((1, more), 6).expand(len(ids), -1)], 1)
    told = {}
    for name, value in labels(inputs).items():
        one = torch.cat([pad * 0, value] if side == "left" else [value, pad * 0], 1)
        told[name] = torch.cat([one, torch.zeros_like(longer)])
    sources = None
    if isinstance(model, EncoderDecoderModel):
        sources = {"source": padded_source(model, enters(inputs), side)}
    lengths = torch.tensor([length] * len(ids) + [length + more] * len(ids))
    out = model(torch.cat([padded, longer]), lengths=lengths, side=side, labels=told, sources=sources)[: len(ids)]
    if out.dim() == answer.dim() and out.shape[1] == length + more:
        out = out[:, more:] if side == "left" else out[:, :length]
    torch.testing.assert_close(out, answer, **CLOSE)


@every
def test_written_again_bit_for_bit(case: Case) -> None:
    """Every tensor of the file comes back under its name, and the config declares the same."""
    reference = stored(case)
    config, tensors = exported(case, reference)
    theirs = reference.published(case).tensors
    assert tensors.keys() <= theirs.keys()
    assert all(torch.equal(tensors[name], theirs[name]) for name in tensors)
    assert declared(config, "ours") == declared(reference.config, "theirs")


@every
@torch.no_grad()
def test_read_by_the_reference(case: Case, tmp_path: Path) -> None:
    """What we write is a folder that the library reads, with equal logits."""
    reference = built(case)
    config, tensors = exported(case, reference)
    pads = {key: reference.config[key] for key in ("pad_token_id",) if key in reference.config}  # as a tokenizer says
    write(tmp_path, {**config, **pads}, tensors)
    with exact(), quiet(pytest.importorskip("transformers")):
        answer = asked(case, opened(case, tmp_path), reference.inputs)
    torch.testing.assert_close(answer.out, reference.answer.out, **CLOSE)
