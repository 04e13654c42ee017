"""DeepSeek-V3 (DeepSeek-AI 2024): latent attention, and many small experts behind a first few dense layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import log, sqrt
from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.latent import Latent
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import (
    ACTIVATIONS,
    FLAG,
    FRACTION,
    NUMBER,
    POSITIVE,
    SIZE,
    WHOLE,
    Config,
    Kind,
    one_of,
    or_none,
)
from anyformer.checkpoints.names import Names
from anyformer.core.errors import InputError
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.experts import Experts
from anyformer.feedforward.gated import Gated
from anyformer.feedforward.routers.sigmoid import SigmoidRouter
from anyformer.models.base import ModelType
from anyformer.models.head import TIES, language
from anyformer.models.llama import MIXER, Llama, decoder, gated
from anyformer.models.mixtral import FF_OF, expert_names
from anyformer.models.rope import older, rotary
from anyformer.norms.rms import RMSNorm
from anyformer.positions.rates.yarn import YaRN, amplitude
from anyformer.residuals.pre import Pre

PAIRS = one_of({True: "neighbours", False: "halves"})
SHARPER = "mscale_all_dim"  # stands with the rotary keys, and is of the scores
# of the layer more that published files have, which guesses the token after the next and is not built
GUESSES = ("eh_proj", "enorm", "hnorm", "embed_tokens", "shared_head.norm", "shared_head.head")
PARTS = {
    "q_proj": "q",
    "q_a_proj": "q_down",
    "q_a_layernorm": "q_norm",
    "q_b_proj": "q_up",
    "kv_a_proj_with_mqa": "kv_down",
    "kv_a_layernorm": "kv_norm",
    "kv_b_proj": "kv_up",
}


def _dense(blocks: list[Any]) -> int:
    kinds = [block["ff"]["kind"] for block in blocks]
    return kinds.index("experts") if "experts" in kinds else len(kinds)


# how many layers have no experts, of all blocks
DENSE: Kind[int] = Kind(WHOLE.what, WHOLE.read, _dense)


def times(size: int) -> Kind[int]:
    """A number of experts that are one, of so many times the size."""

    def write(hidden: int) -> int:
        if hidden % size:
            raise ValueError
        return hidden // size

    return Kind(SIZE.what, lambda count: SIZE.read(count) * size, write)


def sharper(size: int, factor: float) -> Kind[float | None]:
    """The scale of scores over `size` channels, as YaRN's weight; None: the usual one."""

    def read(weight: Any) -> float | None:
        return size**-0.5 * amplitude(factor, NUMBER.read(weight)) ** 2 if weight else None

    def write(scale: float | None) -> float | None:
        if scale is None:
            return None
        weight = round((sqrt(scale * sqrt(size)) - 1) / (0.1 * log(factor)), 9)
        if read(weight) != scale:
            raise ValueError
        return weight

    return Kind(NUMBER.what, read, write)


class DeepSeek3(ModelType):
    """DeepSeek-V3 (DeepSeek-AI 2024)."""

    classes = ("DeepseekV3ForCausalLM", "DeepseekV3Model", "DeepseekV3ForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES
    aliases: ClassVar = {"num_local_experts": "n_routed_experts"}

    def read(self, tree: Mapping[str, Any], where: str, allow: Collection[str] = ()) -> ModelSpec:
        made = older(tree)
        inner = made.get("rope_scaling")
        told = {SHARPER: inner[SHARPER]} if isinstance(inner, dict) and SHARPER in inner else {}
        return super().read({**made, **told}, where, allow)

    def write(self, model_type: str, spec: ModelSpec) -> dict[str, Any]:
        tree = super().write(model_type, spec)
        if (told := tree.pop(SHARPER, None)) is not None:
            tree["rope_scaling"][SHARPER] = told
        return tree

    def declare(self, c: Config, name: str) -> Decoder:
        context = c.take("max_position_embeddings", SIZE, "context", 4096)
        norm = RMSNorm(eps=c.take("rms_norm_eps", POSITIVE, "body.norm.eps", 1e-6))
        c.expect("scoring_func", "sigmoid", default="sigmoid")
        c.expect("topk_method", "noaux_tc", default="noaux_tc")
        c.expect("moe_layer_freq", 1, default=1)
        c.ignore("aux_loss_alpha", "ep_size", "head_dim", "num_mtp_layers", "num_nextn_predict_layers", "seq_aux")
        c.ignore("output_router_logits", "qk_head_dim")
        mixer, residual = self.mixer(c, context), Pre(norm=norm)
        blocks = [
            Block(mixer=mixer, ff=ff, residual=residual)
            for ff in self.feedforwards(c, c.count("num_hidden_layers", "body.blocks"))
        ]
        return decoder(c, context, blocks, norm, language(c, name, tied=False))

    def mixer(self, c: Config, context: int) -> Latent:
        """Attention; its norms have an eps of their own, which no key changes."""
        heads = c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
        if c.take("num_key_value_heads", or_none(SIZE), f"{MIXER}.heads", None) not in (None, heads):
            raise ValueError(f"num_key_value_heads should be num_attention_heads ({heads}): all heads read one key")
        own = c.take("qk_nope_head_dim", SIZE, f"{MIXER}.head_size", 128)
        shared = c.take("qk_rope_head_dim", SIZE, f"{MIXER}.shared_size", 64)
        turn = rotary(c, f"{MIXER}.position", context)
        scale = None
        if isinstance(turn.scaling, YaRN):
            scale = c.take(SHARPER, sharper(own + shared, turn.scaling.factor), f"{MIXER}.scale", None)
        return Latent(
            heads=heads,
            head_size=own,
            shared_size=shared,
            value_size=c.take("v_head_dim", SIZE, f"{MIXER}.value_size", 128),
            kv_rank=c.take("kv_lora_rank", SIZE, f"{MIXER}.kv_rank", 512),
            q_rank=c.take("q_lora_rank", or_none(SIZE), f"{MIXER}.q_rank", 1536),
            norm=RMSNorm(eps=1e-6),
            position=replace(turn, pairs=c.take("rope_interleave", PAIRS, f"{MIXER}.position.pairs", True)),
            bias=c.take("attention_bias", FLAG, f"{MIXER}.bias", False),
            scale=scale,
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )

    def feedforwards(self, c: Config, count: int) -> list[Gated | Experts]:
        """Of all layers."""
        first = min(count, c.take("first_k_dense_replace", DENSE, "body.blocks", 3))
        found: list[Gated | Experts] = []
        if first:
            found += [gated(c, at=FF_OF.format(i=0))] * first
        else:
            c.ignore("intermediate_size")
        if first < count:
            found += [experts(c, FF_OF.format(i=first))] * (count - first)
        return found

    def fitted(self, spec: ModelSpec, tensors: Collection[str]) -> ModelSpec:
        after = f"model.layers.{layers(spec)}."
        if any(name.startswith(after) for name in tensors) and f"{after}{GUESSES[0]}.weight" not in tensors:
            raise InputError(f"num_hidden_layers is {layers(spec)}, and the file has {after}…, which is a usual layer")
        return spec

    def names(self, spec: ModelSpec) -> Names:
        theirs, ours = "model.layers.{i}", "body.blocks.{i}"
        table = dict(Llama().names(spec))
        for side in ("weight", "bias"):
            table |= {
                f"{theirs}.self_attn.{part}.{side}": f"{ours}.mixer.{name}.{side}" for part, name in PARTS.items()
            }
        for part in ("gate", "up", "down"):
            table[f"{theirs}.mlp.shared_experts.{part}_proj.weight"] = f"{ours}.ff.shared.{part}.weight"
        table |= expert_names(f"{theirs}.mlp", "gate_proj", "up_proj", "down_proj")
        table[f"{theirs}.mlp.gate.e_score_correction_bias"] = f"{ours}.ff.router.correction"
        more = [*(name for name in table if "{i}" in name), *(f"{theirs}.{part}.weight" for part in GUESSES)]
        return {**table, **{name.replace("{i}", str(layers(spec))): None for name in more}}


def layers(spec: ModelSpec) -> int:
    """How many layers are built."""
    assert isinstance(spec, Decoder) and isinstance(spec.body, Stack)
    return len(spec.body.blocks)


def experts(c: Config, at: str) -> Experts:
    """Experts whose choice is corrected by a bias, beside one that every token takes."""
    one = gated(c, at=f"{at}.expert", size="moe_intermediate_size")
    assert one.hidden is not None
    return Experts(
        expert=one,
        count=c.take("n_routed_experts", SIZE, f"{at}.count", 256),
        top=c.take("num_experts_per_tok", SIZE, f"{at}.top", 8),
        router=SigmoidRouter(
            groups=c.take("n_group", SIZE, f"{at}.router.groups", 8),
            best=c.take("topk_group", SIZE, f"{at}.router.best", 4),
        ),
        renormalise=c.take("norm_topk_prob", FLAG, f"{at}.renormalise", True),
        scale=c.take("routed_scaling_factor", POSITIVE, f"{at}.scale", 2.5),
        shared=Gated(
            hidden=c.take("n_shared_experts", times(one.hidden), f"{at}.shared.hidden", 1),
            activation=c.take("hidden_act", ACTIVATIONS, f"{at}.shared.activation", "silu"),
        ),
        balance=0.0,
    )
