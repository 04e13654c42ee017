"""Residuals and blocks against plain formulas: what parts read, how they join the stream, and what they begin as."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anyformer.blocks.base import PartsBlock
from anyformer.core.build import fill_all
from anyformer.core.context import Context
from anyformer.core.roles import AnyLayer, AnyModel, Residual
from anyformer.core.spec import Site, from_dict
from anyformer.core.tape import Tape
from anyformer.residuals.base import Residual as Joint

C, T, EPS = 10, 7, 0.3
SAME = {"rtol": 0.0, "atol": 1e-12}
RMS = {"kind": "rms", "eps": EPS}
LAYER = {"kind": "layer", "eps": EPS}
MIXER = {"kind": "softmax", "heads": 2, "bias": True}
CROSS = {"kind": "cross", "heads": 2}
KINDS = ("deepnorm", "post", "pre", "rezero", "sandwich")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def redrawn(module: Any) -> Any:
    """In float64, with weights that are not small."""
    fill_all(module.double(), 0)
    with torch.no_grad():
        for number, weight in enumerate(module.parameters()):
            weight.copy_(0.5 * draw(*weight.shape, seed=number + 3))
    return module


def residual(kind: str, joins: tuple[str, ...] = ("mixer", "ff"), depth: int = 1, **fields: Any) -> Joint:
    site = Site("residual", C, joins=joins, depth=(0, depth))
    return redrawn(from_dict(Residual, {"kind": kind, **fields}).build(site))


def through(joint: Joint, part: str, x: Tensor, f: Any) -> Tensor:
    return joint.leave(part, x, f(joint.enter(part, x)))


def f(x: Tensor) -> Tensor:
    """A part that is neither linear nor blind to scale."""
    return x.sin() * 3 + x.flip(-1)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight + bias


# the formulas


@pytest.mark.parametrize("part", ["mixer", "ff"])
def test_sandwich(part: str) -> None:
    joint, x = residual("sandwich", norm=RMS, after=LAYER), draw(2, T, C)
    w = dict(joint.named_parameters())
    said = f(rms(x, w[f"norm.{part}.weight"]))
    want = x + layer(said, w[f"after.{part}.weight"], w[f"after.{part}.bias"])
    assert_close(through(joint, part, x, f), want, **SAME)


def test_sandwich_without_a_first_norm_is_olmo_2s() -> None:
    joint, x = residual("sandwich", norm="no_norm", after=RMS), draw(2, T, C)
    w = dict(joint.named_parameters())
    assert set(w) == {"after.mixer.weight", "after.ff.weight"}
    assert_close(through(joint, "ff", x, f), x + rms(f(x), w["after.ff.weight"]), **SAME)


@pytest.mark.parametrize("part", ["mixer", "ff"])
def test_deepnorm(part: str) -> None:
    joint, x = residual("deepnorm", norm=LAYER, alpha=1.7), draw(2, T, C)
    w = dict(joint.named_parameters())
    want = layer(1.7 * x + f(x), w[f"norm.{part}.weight"], w[f"norm.{part}.bias"])
    assert_close(through(joint, part, x, f), want, **SAME)


@pytest.mark.parametrize("part", ["mixer", "ff"])
def test_rezero(part: str) -> None:
    joint, x = residual("rezero"), draw(2, T, C)
    w = dict(joint.named_parameters())
    assert {name: weight.numel() for name, weight in w.items()} == {"scale.mixer": 1, "scale.ff": 1}
    assert_close(through(joint, part, x, f), x + w[f"scale.{part}"].item() * f(x), **SAME)


def test_rezero_with_a_norm() -> None:
    joint, x = residual("rezero", norm=RMS), draw(2, T, C)
    w = dict(joint.named_parameters())
    want = x + w["scale.mixer"].item() * f(rms(x, w["norm.mixer.weight"]))
    assert_close(through(joint, "mixer", x, f), want, **SAME)


def test_rezero_begins_as_the_identity_and_learns() -> None:
    joint, x = residual("rezero"), draw(2, T, C)
    fill_all(joint, 0)
    out = through(joint, "ff", x, f)
    assert torch.equal(out, x)
    out.sum().backward()
    assert joint.get_parameter("scale.ff").grad is not None
    assert_close(joint.get_parameter("scale.ff").grad, f(x).sum()[None], **SAME)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_of_what_a_part_says(kind: str) -> None:
    """With everything dropped the part has said nothing; in evaluation nothing is dropped."""
    joint, x = residual(kind, dropout=1.0), draw(2, T, C)
    silent = joint.leave("ff", x, torch.zeros_like(x))
    assert torch.equal(joint.train().leave("ff", x, f(x)), silent)
    assert not torch.equal(joint.eval().leave("ff", x, f(x)), silent)
    some = residual(kind, dropout=0.4).train()
    torch.manual_seed(5)
    mask = torch.nn.functional.dropout(torch.ones_like(x), 0.4)
    torch.manual_seed(5)
    assert_close(some.leave("ff", x, f(x)), joint.leave("ff", x, f(x) * mask), **SAME)


# DeepNorm's numbers (Wang et al. 2022, figure 2)


@pytest.mark.parametrize("depth", [1, 6, 100])
def test_deepnorm_of_one_stack(depth: int) -> None:
    """Encoder alone, decoder alone: (2N)^(1/4) and (8N)^(-1/4)."""
    joint = residual("deepnorm", depth=depth)
    assert joint.alpha == pytest.approx((2 * depth) ** (1 / 4), rel=1e-15)
    assert joint.gain == pytest.approx((8 * depth) ** (-1 / 4), rel=1e-15)


def test_deepnorm_of_a_decoder_that_reads_an_encoder() -> None:
    """(3M)^(1/4) and (12M)^(-1/4)."""
    joint = residual("deepnorm", joins=("mixer", "cross", "ff"), depth=18)
    assert joint.alpha == pytest.approx(54 ** (1 / 4), rel=1e-15)
    assert joint.gain == pytest.approx(216 ** (-1 / 4), rel=1e-15)


def test_deepnorm_of_the_encoder_that_is_read() -> None:
    n, m = 18, 6
    alpha, beta = 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)
    joint = residual("deepnorm", depth=n, alpha=alpha, beta=beta)
    assert (joint.alpha, joint.gain) == (alpha, beta)


def first_weights(joins: Any, **fields: Any) -> dict[str, Tensor]:
    """Of a model of three blocks, the last of which has a mixture of experts."""
    block = {"kind": "block", "mixer": MIXER, "residual": joins}
    experts = {"kind": "experts", "count": 3, "expert": {"kind": "gated", "hidden": 6}}
    blocks = [block, {**block, "ff": {"kind": "gated", "hidden": 6}, **fields}, {**block, "ff": experts}]
    body = {"kind": "stack", "blocks": blocks}
    model = from_dict(AnyModel, {"kind": "decoder", "width": C, "vocabulary": 11, "body": body}).build(seed=4)
    return dict(model.named_parameters())


def test_deepnorm_scales_what_its_neighbours_begin_as() -> None:
    plain, scaled = first_weights("post"), first_weights("deepnorm")
    beta = 24 ** (-1 / 4)
    found: set[str] = set()
    for name, weight in plain.items():
        step = re.sub(r"body\.blocks\.\d\.|expert\.\d\.", "", name)
        said = re.fullmatch(r"mixer\.[vo]\.weight|ff\.(up|gate|down)\.weight", step)
        if said:
            found.add(step)
            assert_close(scaled[name], weight * beta, msg=lambda text, name=name: f"{name}: {text}")
        else:
            assert torch.equal(scaled[name], weight), name
    assert found == {"mixer.v.weight", "mixer.o.weight", "ff.up.weight", "ff.gate.weight", "ff.down.weight"}


def test_a_residual_scales_nothing_beyond_its_block() -> None:
    """A block within a block's part has a residual of its own, and the next block too."""
    inner = {"kind": "rmt", "segment": 3, "slots": 1, "inner": {"kind": "block", "mixer": MIXER}}
    fields = {"mixer": inner, "residual": "deepnorm"}
    plain, scaled = first_weights("pre", mixer=inner), first_weights("pre", **fields)
    changed = {n for n in plain.keys() & scaled.keys() if not torch.equal(plain[n], scaled[n])}
    assert changed == {f"body.blocks.1.ff.{name}.weight" for name in ("up", "gate", "down")}


# blocks


def block(kind: str, **fields: Any) -> PartsBlock:
    ff = {"kind": "gated", "hidden": 13}
    spec = from_dict(AnyLayer, {"kind": kind, "mixer": MIXER, "ff": ff, **fields})
    return redrawn(spec.build(Site("block", C, sources=frozenset({"source"}))))


def parts(made: PartsBlock) -> tuple[Any, Any, dict[str, Tensor]]:
    """The mixer and the feed-forward as functions, and the residual's weights."""
    ctx = Context.start(2, T)
    return (
        lambda x: made.part("mixer")(x, ctx)[0],
        lambda x: made.part("ff")(x, ctx)[0],
        dict(made.residual.named_parameters()),
    )


def test_parallel_with_one_norm() -> None:
    made, x = block("parallel", residual={"kind": "pre", "norm": RMS}), draw(2, T, C)
    mixer, ff, w = parts(made)
    assert set(w) == {"norm.both.weight"}
    normed = rms(x, w["norm.both.weight"])
    assert_close(made(x, Context.start(2, T))[0], x + mixer(normed) + ff(normed), **SAME)


def test_parallel_with_two_norms() -> None:
    made, x = block("parallel", residual={"kind": "pre", "norm": RMS}, shared=False), draw(2, T, C)
    mixer, ff, w = parts(made)
    want = x + mixer(rms(x, w["norm.mixer.weight"])) + ff(rms(x, w["norm.ff.weight"]))
    assert_close(made(x, Context.start(2, T))[0], want, **SAME)


def test_parallel_with_post_norm() -> None:
    """What both say joins as one sum; where each joins for itself, both still read the stream as it came."""
    x, ctx = draw(2, T, C), Context.start(2, T)
    one = block("parallel", residual={"kind": "post", "norm": LAYER})
    mixer, ff, w = parts(one)
    said = x + mixer(x) + ff(x)
    assert_close(one(x, ctx)[0], layer(said, w["norm.both.weight"], w["norm.both.bias"]), **SAME)
    two = block("parallel", residual={"kind": "post", "norm": RMS}, shared=False)
    mixer, ff, w = parts(two)
    want = rms(rms(x + mixer(x), w["norm.mixer.weight"]) + ff(x), w["norm.ff.weight"])
    assert_close(two(x, ctx)[0], want, **SAME)


@pytest.mark.parametrize("kind", KINDS)
def test_one_part_after_the_other(kind: str) -> None:
    made, x = block("block", residual=kind), draw(2, T, C)
    mixer, ff, _ = parts(made)
    want = through(made.residual, "ff", through(made.residual, "mixer", x, mixer), ff)
    assert_close(made(x, Context.start(2, T))[0], want, **SAME)
    assert (want - block("parallel", residual=kind)(x, Context.start(2, T))[0]).abs().max() > 0.01


def test_what_parts_say_is_on_the_tape() -> None:
    """And what is put there in its place is what joins."""
    for kind in ("block", "parallel"):
        made, x = block(kind), draw(2, T, C)
        tape = Tape(["block.mixer", "block.ff"], {"block.mixer": torch.zeros_like, "block.ff": torch.zeros_like})
        assert torch.equal(made(x, Context(Context.start(2, T).where, tape=tape))[0], x)
        assert [name for name, _ in tape.values] == ["block.mixer", "block.ff"]
