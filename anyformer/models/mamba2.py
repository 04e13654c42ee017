"""Mamba-2 (Dao & Gu 2024): blocks of one state-space mixer each, and nothing else."""

from __future__ import annotations

from math import inf, isinf
from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.mamba2 import Mamba2
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, NUMBER, POSITIVE, SIZE, Config, Kind
from anyformer.checkpoints.names import Fused, Names, Rule
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.head import TIES, language
from anyformer.models.llama import MIXER
from anyformer.norms.rms import RMSNorm
from anyformer.residuals.pre import Pre

Limits = tuple[float, float | None]
NO_LIMITS = (0.0, inf)
INFINITE = {"__float__": "Infinity"}  # how JSON that is strict has it


def _limits(value: Any) -> Limits:
    least, most = value
    most = inf if most == INFINITE else most
    return NUMBER.read(least), None if isinstance(most, float) and isinf(most) else POSITIVE.read(most)


LIMITS: Kind[Limits] = Kind(
    "a pair of numbers", _limits, lambda pair: [pair[0], INFINITE if pair[1] is None else pair[1]]
)


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
        c.ignore("time_step_floor", "time_step_max", "time_step_min")
        width = c.take("hidden_size", SIZE, "width", 4096)
        norm = RMSNorm(eps=c.take("layer_norm_epsilon", POSITIVE, "body.norm.eps", 1e-5))
        heads = c.take("num_heads", SIZE, f"{MIXER}.heads", 128)
        size = c.take("head_dim", SIZE, f"{MIXER}.head_size", 64)
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
            head=language(c, bare=name == "Mamba2Model", tied=False),
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
