"""Mamba-2 (Dao & Gu 2024): blocks of one state-space mixer each, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isinf
from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.mamba2 import Mamba2
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, NUMBER, POSITIVE, SIZE, Config, Kind, Reading
from anyformer.checkpoints.names import Fused, Names, Rule
from anyformer.core.errors import InputError
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.head import TIES, language
from anyformer.models.llama import MIXER
from anyformer.norms.rms import RMSNorm
from anyformer.residuals.pre import Pre

Limits = tuple[float, float | None]
NO_LIMITS = (0.0, inf)
INFINITE = {"__float__": "Infinity"}  # how JSON that is strict has it
# keys of a mixer in the authors' own files -> those of others, and what is meant where they are missing
OFFICIAL = {
    "d_state": ("state_size", 128),
    "d_conv": ("conv_kernel", 4),
    "expand": ("expand", 2),
    "headdim": ("head_dim", 64),
    "ngroups": ("n_groups", 1),
    "chunk_size": ("chunk_size", 256),
}


def _limits(value: Any) -> Limits:
    least, most = value
    most = inf if most == INFINITE else most
    return NUMBER.read(least), None if isinstance(most, float) and isinf(most) else POSITIVE.read(most)


LIMITS: Kind[Limits] = Kind(
    "a pair of numbers", _limits, lambda pair: [pair[0], INFINITE if pair[1] is None else pair[1]]
)


def _empty(value: Any) -> None:
    if value != []:
        raise ValueError


EMPTY: Kind[None] = Kind("an empty list", _empty)


def official(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config of the authors' own files, which have no model_type, in the form that others have."""
    c = Reading(tree, where)
    inner, _ = c.part("ssm_cfg"), c.part("attn_cfg", {})
    if inner is None or inner.tree.get("layer") != "Mamba2":
        raise InputError(f"{where}: ssm_cfg: layer should be 'Mamba2'")
    inner.ignore("layer")
    c.ignore("fused_add_norm", "residual_in_fp32")
    c.said({"d_intermediate": 0, "rms_norm": True})
    c.given("attn_layer_idx", EMPTY, None)
    width, times = c.given("d_model", SIZE, 2560), c.given("pad_vocab_size_multiple", SIZE, 8)
    sizes = {ours: inner.given(theirs, SIZE, usual) for theirs, (ours, usual) in OFFICIAL.items()}
    made = {
        "architectures": ["Mamba2ForCausalLM"],
        "model_type": "mamba2",
        "hidden_size": width,
        "num_hidden_layers": c.given("n_layer", SIZE, 64),
        "num_heads": sizes["expand"] * width // sizes["head_dim"],
        "vocab_size": -(-c.given("vocab_size", SIZE, 50_277) // times) * times,
        "tie_word_embeddings": c.given("tie_embeddings", FLAG, True),
        **sizes,
    }
    c.done()
    return made


def widened(width: int, inner: int) -> Kind[int]:
    """How many times the width all heads together are, which has to be right."""

    def read(value: Any) -> int:
        if SIZE.read(value) * width != inner:
            raise ValueError
        return value

    return Kind(
        f"how many times hidden_size ({width}) all heads together ({inner}) are", read, lambda _: inner // width
    )


def mixer_names(theirs: str, ours: str) -> dict[str, str | Rule]:
    """The tensors of a mixer."""
    table: dict[str, str | Rule] = {
        f"{theirs}.dt_bias": f"{ours}.dt_bias",
        f"{theirs}.A_log": f"{ours}.A_log",
        f"{theirs}.D": f"{ours}.skip",
        f"{theirs}.norm.weight": f"{ours}.norm.weight",
    }
    for side in ("weight", "bias"):
        table[f"{theirs}.in_proj.{side}"] = Fused(
            tuple(f"{ours}.{part}.{side}" for part in ("gate", "v", "k", "q", "dt"))
        )
        table[f"{theirs}.conv1d.{side}"] = f"{ours}.conv.{side}"
        table[f"{theirs}.out_proj.{side}"] = f"{ours}.o.{side}"
    return table


class Mamba2Type(ModelType):
    """Mamba-2 (Dao & Gu 2024)."""

    classes = ("Mamba2ForCausalLM", "Mamba2Model")
    prefix = "backbone."
    ties: ClassVar = TIES
    renamed: ClassVar = {"embedding.weight": "embeddings.weight"}

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore("rescale_prenorm_residual", "residual_in_fp32", "time_step_rank")
        c.ignore("time_step_floor", "time_step_init_scheme", "time_step_max", "time_step_min", "time_step_scale")
        c.ignore("norm_before_gate")  # which files say, and no reader does
        width = c.take("hidden_size", SIZE, "width", 4096)
        norm = RMSNorm(eps=c.take("layer_norm_epsilon", POSITIVE, "body.norm.eps", 1e-5))
        heads = c.take("num_heads", SIZE, f"{MIXER}.heads", 128)
        size = c.take("head_dim", SIZE, f"{MIXER}.head_size", 64)
        c.said({"intermediate_size": heads * size, "rms_norm": True})
        c.take("expand", widened(width, heads * size), f"{MIXER}.heads", 2)
        mixer = Mamba2(
            heads=heads,
            head_size=size,
            state=c.take("state_size", SIZE, f"{MIXER}.state", 128),
            groups=c.take("n_groups", SIZE, f"{MIXER}.groups", 8),
            kernel=c.take("conv_kernel", SIZE, f"{MIXER}.kernel", 4),
            bias=c.take("use_bias", FLAG, f"{MIXER}.bias", False),
            conv_bias=c.take("use_conv_bias", FLAG, f"{MIXER}.conv_bias", True),
            activation=c.take("hidden_act", ACTIVATIONS, f"{MIXER}.activation", "silu"),
            time_step_limit=c.take("time_step_limit", LIMITS, f"{MIXER}.time_step_limit", NO_LIMITS),
            eps=norm.eps,
            chunk=c.take("chunk_size", SIZE, f"{MIXER}.chunk", 256),
        )
        block = Block(mixer=mixer, ff=None, residual=Pre(norm=norm))
        return Decoder(
            vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
            width=width,
            body=Stack(blocks=(block,) * c.count("num_hidden_layers", "body.blocks"), norm=norm),
            head=language(c, name, tied=False),
        )

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "backbone.layers.{i}", "body.blocks.{i}"
        return {
            "backbone.embeddings.weight": "embedding.weight",
            f"{theirs}.norm.weight": f"{ours}.residual.norm.mixer.weight",
            **mixer_names(f"{theirs}.mixer", f"{ours}.mixer"),
            "backbone.norm_f.weight": "body.norm.weight",
            "lm_head.weight": "head.out.weight",
        }
