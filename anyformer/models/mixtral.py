"""Mixtral (Jiang et al. 2024) and Qwen 3's experts (Yang et al. 2025): Llama's kin with experts for feed-forwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.sequential import Block
from anyformer.checkpoints.config import FLAG, NUMBER, POSITIVE, SIZE, WHOLE, Config, Kind, several
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.experts import Experts
from anyformer.feedforward.gated import Gated
from anyformer.models.base import ModelType
from anyformer.models.grouped import SIGHT, attention
from anyformer.models.head import TIES, language
from anyformer.models.llama import FF, MIXER, Llama, decoder, gated
from anyformer.models.rope import rotary
from anyformer.norms.rms import RMSNorm
from anyformer.residuals.pre import Pre

FF_OF = "body.blocks.{i}.ff"


def expert_names(theirs: str, gate: str, up: str, down: str) -> dict[str, str]:
    """A router and its experts. theirs: where they stand, with {i}; gate, up, down: of an expert's parts."""
    parts = {gate: "gate", up: "up", down: "down"}
    return {
        f"{theirs}.gate.weight": f"{FF_OF}.router.weight",
        **{
            f"{theirs}.experts.{{e}}.{part}.weight": f"{FF_OF}.expert.{{e}}.{name}.weight"
            for part, name in parts.items()
        },
    }


class Mixtral(ModelType):
    """Mixtral, whose tokens each choose two of eight feed-forwards (Jiang et al. 2024)."""

    classes = ("MixtralForCausalLM", "MixtralModel", "MixtralForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        context = c.take("max_position_embeddings", SIZE, "context", 131_072)
        norm = RMSNorm(eps=c.take("rms_norm_eps", POSITIVE, "body.norm.eps", 1e-5))
        c.ignore("output_router_logits", "router_jitter_noise")
        turn = rotary(c, f"{MIXER}.position", context, 1_000_000.0)
        mixer = replace(
            attention(c, MIXER, turn, kv_heads=8), pattern=c.take("sliding_window", SIGHT, f"{MIXER}.pattern", None)
        )
        ff = Experts(
            expert=gated(c, at=f"{FF}.expert"),
            count=c.take("num_local_experts", SIZE, f"{FF}.count", 8),
            top=c.take("num_experts_per_tok", SIZE, f"{FF}.top", 2),
            balance=c.take("router_aux_loss_coef", NUMBER, f"{FF}.balance", 0.001),
        )
        block = Block(mixer=mixer, ff=ff, residual=Pre(norm=norm))
        blocks = (block,) * c.count("num_hidden_layers", "body.blocks")
        return decoder(c, context, blocks, norm, language(c, name, tied=False))

    def names(self, spec: ModelSpec) -> Names:
        return {**Llama().names(spec), **expert_names("model.layers.{i}.block_sparse_moe", "w1", "w3", "w2")}


def _dense(blocks: list[Any]) -> list[int]:
    return [index for index, block in enumerate(blocks) if block["ff"]["kind"] != "experts"]


# the layers without experts, of all blocks
DENSE: Kind[tuple[int, ...]] = Kind(several(WHOLE).what, lambda value: several(WHOLE).read(value or []), _dense)
USES_WINDOW: Kind[bool] = Kind(FLAG.what, FLAG.read, lambda pattern: pattern != "causal")


class Qwen3Experts(ModelType):
    """Qwen 3 with experts (Yang et al. 2025): queries and keys are normalised, some layers may have no experts."""

    classes = ("Qwen3MoeForCausalLM", "Qwen3MoeModel", "Qwen3MoeForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES
    aliases: ClassVar = {"num_local_experts": "num_experts"}

    def declare(self, c: Config, name: str) -> Decoder:
        context = c.take("max_position_embeddings", SIZE, "context", 32_768)
        norm = RMSNorm(eps=c.take("rms_norm_eps", POSITIVE, "body.norm.eps", 1e-6))
        c.ignore("output_router_logits", "max_window_layers")
        c.said({"qkv_bias": False, "shared_expert_intermediate_size": 0, "use_qk_norm": True})
        turn = rotary(c, f"{MIXER}.position", context)
        mixer = replace(attention(c, MIXER, turn, kv_heads=4, bias=False), qk_norm=norm)
        if c.take("use_sliding_window", USES_WINDOW, f"{MIXER}.pattern", False):
            mixer = replace(mixer, pattern=c.take("sliding_window", SIGHT, f"{MIXER}.pattern", 4096))
        else:
            c.ignore("sliding_window")
        blocks = [
            Block(mixer=mixer, ff=ff, residual=Pre(norm=norm))
            for ff in self.feedforwards(c, c.count("num_hidden_layers", "body.blocks"))
        ]
        return decoder(c, context, blocks, norm, language(c, name, tied=False))

    def feedforwards(self, c: Config, count: int) -> list[Experts | Gated]:
        """Of all layers: every `decoder_sparse_step`-th has experts, but for those that are named."""
        step, named = c.given("decoder_sparse_step", SIZE, 1), c.take("mlp_only_layers", DENSE, "body.blocks", [])
        dense = [index in named or (index + 1) % step != 0 for index in range(count)]
        wide = narrow = None
        if True in dense:
            wide = gated(c, at=FF_OF.format(i=dense.index(True)))
        else:
            c.ignore("intermediate_size")
        if False in dense:
            at = FF_OF.format(i=dense.index(False))
            narrow = Experts(
                expert=gated(c, at=f"{at}.expert", size="moe_intermediate_size"),
                count=c.take("num_experts", SIZE, f"{at}.count", 128),
                top=c.take("num_experts_per_tok", SIZE, f"{at}.top", 8),
                renormalise=c.take("norm_topk_prob", FLAG, f"{at}.renormalise", False),
                balance=c.take("router_aux_loss_coef", NUMBER, f"{at}.balance", 0.001),
            )
        return [one for index in range(count) if (one := wide if dense[index] else narrow) is not None]

    def names(self, spec: ModelSpec) -> Names:
        norms = {
            f"model.layers.{{i}}.self_attn.{part}.weight": f"body.blocks.{{i}}.mixer.{part}.weight"
            for part in ("q_norm", "k_norm")
        }
        experts = expert_names("model.layers.{i}.mlp", "gate_proj", "up_proj", "down_proj")
        return {**Llama().names(spec), **norms, **experts}
