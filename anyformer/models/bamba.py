"""Bamba (IBM 2024): Mamba-2's mixer in most layers, softmax attention in some, a gated unit in all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.mamba2 import Mamba2
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, POSITIVE, SIZE, WHOLE, Config, Kind, several
from anyformer.checkpoints.names import Names, Rule
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.grouped import MIXER_OF, attention, unless
from anyformer.models.head import TIES, language
from anyformer.models.llama import decoder, gated
from anyformer.models.mamba2 import LIMITS, NO_LIMITS, mixer_names, widened
from anyformer.models.rope import rotary
from anyformer.norms.rms import RMSNorm
from anyformer.residuals.pre import Pre


def _attends(blocks: list[Any]) -> list[int]:
    return [index for index, block in enumerate(blocks) if block["mixer"]["kind"] == "softmax"]


# the layers that attend, of all blocks
ATTENDS: Kind[tuple[int, ...]] = Kind(several(WHOLE).what, lambda value: several(WHOLE).read(value or []), _attends)


class Bamba(ModelType):
    """Bamba (IBM 2024)."""

    classes = ("BambaForCausalLM", "BambaModel")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        c.ignore("layer_types", "layers_block_type", "num_logits_to_keep", "use_mamba_kernels", "z_loss_coefficient")
        context = c.take("max_position_embeddings", SIZE, "context", 262_144)
        norm = RMSNorm(eps=c.take("rms_norm_eps", POSITIVE, "body.norm.eps", 1e-5))
        ff = gated(c, bias=False)
        blocks = [
            Block(mixer=mixer, ff=ff, residual=Pre(norm=norm))
            for mixer in self.mixers(c, context, norm.eps, c.count("num_hidden_layers", "body.blocks"))
        ]
        return decoder(c, context, blocks, norm, language(c, name, tied=False))

    def mixers(self, c: Config, context: int, eps: float, count: int) -> list[Softmax | Mamba2]:
        """Of all layers."""
        attending = c.take("attn_layer_indices", ATTENDS, "body.blocks", None)
        attends = [index in attending for index in range(count)]
        width = c.take("hidden_size", SIZE, "width", 4096)
        softmax = mamba = None
        if True in attends:
            softmax = self.softmax(c, MIXER_OF.format(i=attends.index(True)), context, width)
        else:
            c.ignore("attention_bias", "attention_dropout", "num_attention_heads", "num_key_value_heads")
            c.ignore("attn_rotary_emb", "head_dim", "partial_rotary_factor", "rope_scaling", "rope_theta")
        if False in attends:
            mamba = self.mamba(c, MIXER_OF.format(i=attends.index(False)), eps, width)
        return [one for here in attends if (one := softmax if here else mamba) is not None]

    def softmax(self, c: Config, at: str, context: int, width: int) -> Softmax:
        """Half of a head's channels turn."""
        size = width // c.take("num_attention_heads", SIZE, f"{at}.heads", 32)
        c.expect("partial_rotary_factor", 0.5, default=0.5)
        c.said({"attn_rotary_emb": size // 2})
        turn = replace(rotary(c, f"{at}.position", context), channels=size // 2)
        return attention(c, at, turn, kv_heads=8, bias=False, sizes=unless(size))

    def mamba(self, c: Config, at: str, eps: float, width: int) -> Mamba2:
        """Its activation is the gated units', its eps that of all norms."""
        heads = c.take("mamba_n_heads", SIZE, f"{at}.heads", 128)
        usual = c.given("mamba_expand", SIZE, 2) * width // heads
        size = c.take("mamba_d_head", auto(usual), f"{at}.head_size", "auto")
        c.take("mamba_expand", widened(width, heads * size), f"{at}.heads", 2)
        return Mamba2(
            heads=heads,
            head_size=size,
            state=c.take("mamba_d_state", SIZE, f"{at}.state", 256),
            groups=c.take("mamba_n_groups", SIZE, f"{at}.groups", 1),
            kernel=c.take("mamba_d_conv", SIZE, f"{at}.kernel", 4),
            bias=c.take("mamba_proj_bias", FLAG, f"{at}.bias", False),
            conv_bias=c.take("mamba_conv_bias", FLAG, f"{at}.conv_bias", True),
            activation=c.take("hidden_act", ACTIVATIONS, f"{at}.activation", "silu"),
            time_step_limit=c.take("time_step_limit", LIMITS, f"{at}.time_step_limit", NO_LIMITS),
            eps=eps,
            chunk=c.take("mamba_chunk_size", SIZE, f"{at}.chunk", 256),
        )

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Decoder) and isinstance(spec.body, Stack)
        theirs, ours = "model.layers.{i}", "body.blocks.{i}"
        table: dict[str, str | Rule] = {
            "model.embed_tokens.weight": "embedding.weight",
            f"{theirs}.input_layernorm.weight": f"{ours}.residual.norm.mixer.weight",
            f"{theirs}.pre_ff_layernorm.weight": f"{ours}.residual.norm.ff.weight",
            "model.final_layernorm.weight": "body.norm.weight",
            "lm_head.weight": "head.out.weight",
        }
        for side in ("weight", "bias"):
            for part in ("gate", "up", "down"):
                table[f"{theirs}.feed_forward.{part}_proj.{side}"] = f"{ours}.ff.{part}.{side}"
        for index, block in enumerate(spec.body.blocks):  # both mixers have a q, k, v and o
            here, there = f"model.layers.{index}", f"body.blocks.{index}.mixer"
            if isinstance(block, Block) and isinstance(block.mixer, Mamba2):
                table |= mixer_names(f"{here}.mamba", there)
            else:
                for side in ("weight", "bias"):
                    table |= {f"{here}.self_attn.{part}_proj.{side}": f"{there}.{part}.{side}" for part in "qkvo"}
        return table


def auto(usual: int) -> Kind[int]:
    """A size, or `auto` for the usual one."""
    return Kind(
        f"{SIZE.what}, or 'auto'", lambda value: usual if value == "auto" else SIZE.read(value), lambda size: size
    )
