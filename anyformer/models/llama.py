"""Llama (Touvron et al. 2023): a pre-norm decoder with RMSNorm, rotary positions, grouped heads and SwiGLU.

What its kin share with it stands here as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import ACTIVATIONS, FLAG, POSITIVE, SIZE, Config, Kind, or_none
from anyformer.checkpoints.names import Names, Rule, sides
from anyformer.core.spec import HeadSpec, LayerSpec, ModelSpec, NormSpec
from anyformer.embeddings.tokens import Tokens
from anyformer.feedforward.gated import Gated
from anyformer.models.base import ModelType
from anyformer.models.grouped import attention, unless
from anyformer.models.head import TIES, language
from anyformer.models.rope import rotary
from anyformer.norms.rms import RMSNorm
from anyformer.residuals.pre import Pre

MIXER, FF, RESIDUAL = "body.blocks.0.mixer", "body.blocks.0.ff", "body.blocks.0.residual"
POSITION = f"{MIXER}.position"

# names of a file -> ours, without the side; those of a layer within it
ENDS = {"model.embed_tokens": "embedding", "model.norm": "body.norm", "lm_head": "head.out"}
NORMS = {"input_layernorm": "residual.norm.mixer", "post_attention_layernorm": "residual.norm.ff"}
ATTENTION = {f"self_attn.{part}_proj": f"mixer.{part}" for part in ("q", "k", "v", "o")}
GATED = {f"mlp.{part}_proj": f"ff.{part}" for part in ("gate", "up", "down")}


def context(c: Config, usual: int) -> int | None:
    """The longest text. usual: where the config does not say it."""
    return c.take("max_position_embeddings", or_none(SIZE), "context", usual)


def rms(c: Config, usual: float = 1e-6) -> RMSNorm:
    """The one norm that stands everywhere. usual: its epsilon, where the config does not say it."""
    return RMSNorm(eps=c.take("rms_norm_eps", POSITIVE, "body.norm.eps", usual))


def usual_size(c: Config) -> Kind[int | None]:
    """How the size of a head is told, where readers take no null: as its share of the width."""
    width, heads = c.take("hidden_size", SIZE, "width"), c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
    return unless(width // heads)


def no_padding(c: Config) -> None:
    """Write that no token pads: the ids that readers take otherwise may lie outside a small vocabulary."""
    c.take("pad_token_id", Kind("an id, or null", lambda _: None, lambda _: None), "vocabulary", None)


def gated(c: Config, *, bias: bool | None = None, at: str = FF, size: str = "intermediate_size") -> Gated:
    """bias: where the config does not say it; None: it has no such key. size: the key of its hidden width."""
    return Gated(
        hidden=c.take(size, SIZE, f"{at}.hidden"),
        activation=c.take("hidden_act", ACTIVATIONS, f"{at}.activation", "silu"),
        bias=False if bias is None else c.take("mlp_bias", FLAG, f"{at}.bias", bias),
    )


def layers(c: Config) -> int:
    """How many there are."""
    return c.count("num_hidden_layers", "body.blocks")


def decoder(
    c: Config,
    longest: int | None,
    blocks: Sequence[LayerSpec],
    norm: NormSpec,
    head: HeadSpec | None,
    *,
    embedding: Tokens | None = None,
    dropout: float = 0.0,
) -> Decoder:
    """The blocks between an embedding and a head. norm: the last one."""
    return Decoder(
        vocabulary=c.take("vocab_size", SIZE, "vocabulary"),
        width=c.take("hidden_size", SIZE, "width"),
        context=longest,
        embedding=embedding or Tokens(),
        dropout=dropout,
        body=Stack(blocks=tuple(blocks), norm=norm),
        head=head,
    )


def tensors(layer: Mapping[str, str], ends: Mapping[str, str] = ENDS) -> dict[str, str | Rule | None]:
    """A table of names. layer: what each layer has."""
    theirs, ours = "model.layers.{i}", "body.blocks.{i}"
    within = {f"{theirs}.{name}": f"{ours}.{part}" for name, part in layer.items()}
    return {**sides({**ends, **within}), f"{theirs}.self_attn.rotary_emb.inv_freq": None}


# keys of some files, which nothing reads, and what they say
OTHERS = {"is_llama_config": True, "rope_interleaved": False}


class Llama(ModelType):
    """Llama, a pre-norm decoder with RMSNorm, SwiGLU and rotary positions (Touvron et al. 2023)."""

    classes = ("LlamaForCausalLM", "LlamaModel", "LlamaForSequenceClassification")
    older_classes: ClassVar = {"LLaMAForCausalLM": "LlamaForCausalLM"}
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        c.said(OTHERS)
        c.ignore("max_sequence_length")  # of what it was trained on
        longest, norm = context(c, 2048), rms(c)
        mixer = attention(c, MIXER, rotary(c, POSITION, longest), kv_heads=None, bias=False)
        block = Block(mixer=mixer, ff=gated(c, bias=False), residual=Pre(norm=norm))
        head = language(c, name, tied=False)
        return decoder(c, longest, (block,) * layers(c), norm, head)

    def names(self, spec: ModelSpec) -> Names:
        return tensors({**NORMS, **ATTENTION, **GATED})
