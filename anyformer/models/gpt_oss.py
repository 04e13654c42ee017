"""GPT-OSS (OpenAI 2025): clamped experts, sinks in the softmax, windows in every other layer, YaRN."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import NUMBER, POSITIVE, SIZE, Config, Inexpressible
from anyformer.checkpoints.names import Fused, Interleaved, Names, stacked
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.clamped import Clamped
from anyformer.feedforward.experts import Experts
from anyformer.feedforward.routers.softmax import SoftmaxRouter
from anyformer.models.base import ModelType
from anyformer.models.grouped import attention, every, layer_types, patterns
from anyformer.models.head import TIES, language
from anyformer.models.llama import FF, MIXER, Llama, decoder
from anyformer.models.rope import rotary
from anyformer.norms.rms import RMSNorm
from anyformer.residuals.pre import Pre


class GPTOSS(ModelType):
    """GPT-OSS (OpenAI 2025)."""

    classes = ("GptOssForCausalLM", "GptOssModel", "GptOssForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES
    aliases: ClassVar = {"num_experts": "num_local_experts"}

    def declare(self, c: Config, name: str) -> Decoder:
        context = c.take("max_position_embeddings", SIZE, "context", 131_072)
        count = c.count("num_hidden_layers", "body.blocks")
        norm = RMSNorm(eps=c.take("rms_norm_eps", POSITIVE, "body.norm.eps", 1e-5))
        c.ignore("experts_per_token", "hidden_act", "initial_context_length", "output_router_logits")
        turn = rotary(c, f"{MIXER}.position", context, 150_000.0)
        if turn.scaling is None:
            raise Inexpressible("gpt_oss has rotary positions with a scaling, and there is none: set rope_scaling")
        mixer = replace(attention(c, MIXER, turn, kv_heads=8, size=64, bias=True), sink=0.0)
        ff = Experts(
            expert=Clamped(
                hidden=c.take("intermediate_size", SIZE, f"{FF}.expert.hidden"),
                limit=c.take("swiglu_limit", POSITIVE, f"{FF}.expert.limit", 7.0),
                slope=c.take("swiglu_alpha", POSITIVE, f"{FF}.expert.slope", 1.702),
            ),
            count=c.take("num_local_experts", SIZE, f"{FF}.count", 128),
            top=c.take("num_experts_per_tok", SIZE, f"{FF}.top", 4),
            router=SoftmaxRouter(bias=True),
            balance=c.take("router_aux_loss_coef", NUMBER, f"{FF}.balance", 0.001),
        )
        blocks = [
            Block(mixer=replace(mixer, pattern=seen), ff=ff, residual=Pre(norm=norm))
            for seen in patterns(c, layer_types(c, every(2, count)), 128)
        ]
        return decoder(c, context, blocks, norm, language(c, name, tied=False))

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "model.layers.{i}", "body.blocks.{i}"
        first = spec.body.blocks[0] if isinstance(spec, Decoder) and isinstance(spec.body, Stack) else None
        assert isinstance(first, Block) and isinstance(first.ff, Experts)
        table = dict(Llama().names(spec))
        for ending, side in (("", "weight"), ("_bias", "bias")):
            gate, up, down = (f"{ours}.ff.expert.{{e}}.{part}.{side}" for part in ("gate", "up", "down"))
            table |= {
                f"{theirs}.mlp.experts.gate_up_proj{ending}": stacked(first.ff.count, Interleaved((gate, up), True)),
                f"{theirs}.mlp.experts.down_proj{ending}": stacked(first.ff.count, Fused((down,), True)),
                f"{theirs}.mlp.router.{side}": f"{ours}.ff.router.{side}",
            }
        return {**table, f"{theirs}.self_attn.sinks": f"{ours}.mixer.sink"}
