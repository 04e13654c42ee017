"""Declarations beside the rows: parts within parts, where cores break."""

from typing import Any

from anyformer.core.roles import AnyModel
from anyformer.core.spec import from_dict
from anyformer.laws.case import Case
from anyformer.laws.guess import VOCABULARY, WIDTH

STREAMING = "causal & (sinks(2) | window(5))"


def softmax(**fields: Any) -> dict[str, Any]:
    return {"kind": "softmax", "heads": 4, "kv_heads": 1, **fields}


def block(mixer: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"kind": "block", "mixer": mixer, "ff": {"kind": "gated", "hidden": 20}, **fields}


def stack(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"kind": "stack", "blocks": list(blocks), **fields}


def rmt(inner: dict[str, Any], segment: int = 6, slots: int = 2) -> dict[str, Any]:
    return {"kind": "rmt", "inner": inner, "segment": segment, "slots": slots}


LINEAR = block({"kind": "linear", "heads": 4, "kv_heads": 2})
WINDOW = block(softmax(pattern=STREAMING, position="rotary"))
SPACE = block({"kind": "mamba2", "heads": 4, "head_size": 5, "state": 3, "groups": 2, "chunk": 8}, ff=None)
EXPERTS = {"kind": "experts", "count": 4, "expert": {"kind": "mlp", "hidden": 7}, "z": 0.1}
BIASED = {"kind": "t5", "buckets": 8, "furthest": 20}

BODIES: dict[str, dict[str, Any]] = {
    "streaming": stack(WINDOW, block(softmax(pattern="causal & window(3)", position="alibi"))),
    "mixed": stack(block(softmax()), WINDOW, LINEAR),
    "post": stack(block(softmax(position="rotary"), residual="post"), norm="no_norm"),
    "holes": stack(block(softmax(pattern="causal & ~window(3)", position="rotary"))),
    "documents": stack(block(softmax(pattern=f"documents & {STREAMING}", position="rotary"))),
    "rmt-streaming": rmt(stack(WINDOW)),
    "rmt-linear": rmt(stack(LINEAR)),
    "rmt-hybrid": rmt(stack(SPACE, WINDOW)),
    "rmt-rmt": rmt(rmt(stack(block(softmax(position="rotary"))), segment=7, slots=1), segment=12),
    "rmt-2022": rmt(stack(block(softmax(pattern="causal | same(memory)", position="rotary")))),
    "rmt-one": rmt(stack(block(softmax(position="rotary"))), segment=4, slots=1),
    "t5-shared": stack(
        block(softmax(position=BIASED)), block(softmax(position={"ref": "body.blocks.0.mixer.position"}))
    ),
    "experts": stack(
        block(softmax(position="rotary"), ff=EXPERTS, residual="rezero"),
        block(softmax(), ff=EXPERTS, residual="sandwich"),
    ),
    "parallel": stack({**WINDOW, "kind": "parallel", "residual": "deepnorm", "shared": False}, norm="no_norm"),
    "albert": stack(block(softmax(position="rotary")), {"ref": "body.blocks.0"}),
}


def compositions() -> list[Case]:
    """One case for each, the body being the part."""
    return [_case(name, body) for name, body in BODIES.items()]


def _case(name: str, body: dict[str, Any]) -> Case:
    model = {"kind": "decoder", "width": WIDTH, "vocabulary": VOCABULARY, "body": body}
    spec = from_dict(AnyModel, {**model, "labels": ["document"] if name == "documents" else []})
    return Case(f"composition.{name}", spec.body, spec, "body")
