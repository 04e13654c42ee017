"""StableLM (Bellagente et al. 2024): Llama with LayerNorm, partial rotation, and perhaps a norm for each head."""

from __future__ import annotations

from typing import ClassVar

from anyformer.architectures.decoder import Decoder
from anyformer.attention.softmax import Softmax
from anyformer.blocks.parallel import Parallel
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.checkpoints.config import FLAG, FRACTION, POSITIVE, SIZE, Config, one_of
from anyformer.checkpoints.names import Names
from anyformer.core.spec import ModelSpec
from anyformer.models.base import ModelType
from anyformer.models.grouped import unless
from anyformer.models.head import TIES, language
from anyformer.models.llama import (
    ATTENTION,
    GATED,
    MIXER,
    NORMS,
    POSITION,
    context,
    decoder,
    gated,
    layers,
    tensors,
)
from anyformer.models.rope import partial_rotary
from anyformer.norms.layer import LayerNorm
from anyformer.residuals.pre import Pre

# by `use_parallel_residual`: both parts behind one norm, or one after the other
BLOCKS = one_of({False: "block", True: "parallel"})


class StableLM(ModelType):
    """StableLM, Llama with LayerNorm and partial rotation (Bellagente et al. 2024)."""

    classes = ("StableLmForCausalLM", "StableLmModel", "StableLmForSequenceClassification")
    prefix = "model."
    ties: ClassVar = TIES

    def declare(self, c: Config, name: str) -> Decoder:
        c.expect("hidden_dropout", 0.0, 0, default=0.0)  # of the feed-forward alone
        longest, width = context(c, 4096), c.take("hidden_size", SIZE, "width")
        eps = c.take("layer_norm_eps", POSITIVE, "body.norm.eps", 1e-5)
        norm, of_head = LayerNorm(eps=eps), LayerNorm(eps=eps, bias=False)
        heads = c.take("num_attention_heads", SIZE, f"{MIXER}.heads")
        each = c.take("qk_layernorm", one_of({False: None, True: of_head}), f"{MIXER}.qk_norm", False)
        mixer = Softmax(
            heads=heads,
            kv_heads=c.take("num_key_value_heads", unless(heads), f"{MIXER}.kv_heads", 32),
            bias=c.take("use_qkv_bias", FLAG, f"{MIXER}.bias", False),
            out_bias=False,
            position=partial_rotary(c, POSITION, longest, width // heads, 0.25),
            qk_norm=each,
            qk_norm_over="head" if each is None else "each_head",
            dropout=c.take("attention_dropout", FRACTION, f"{MIXER}.dropout", 0.0),
        )
        kind = c.take("use_parallel_residual", BLOCKS, "body.blocks.0.kind", False)
        block = (Parallel if kind == "parallel" else Block)(mixer=mixer, ff=gated(c), residual=Pre(norm=norm))
        head = language(c, name, tied=False)
        return decoder(c, longest, (block,) * layers(c), norm, head)

    def names(self, spec: ModelSpec) -> Names:
        assert isinstance(spec, Decoder)
        assert isinstance(spec.body, Stack)
        one = isinstance(spec.body.blocks[0], Parallel)
        norms = {"input_layernorm": "residual.norm.both"} if one else NORMS
        of_heads = {f"self_attn.{part}_layernorm.norms.{{h}}": f"mixer.{part}_norm.{{h}}" for part in ("q", "k")}
        return tensors({**norms, **ATTENTION, **GATED, **of_heads})
